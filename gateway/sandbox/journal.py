"""What the sandbox has seen: one entry a request, one counter a key. Secrets of keys are never kept."""

import hashlib
import re
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache

JOURNAL_LENGTH = 10_000
BODY_TEXT_LIMIT = 64 * 1024
_ALL_TEXTS_LIMIT = 64 * 1024 * 1024
_KEY_FORM = re.compile(r"sk_([A-Za-z0-9-]{1,64})_(\S{1,256})")


@dataclass(frozen=True, slots=True)
class Key:
    """An upstream key as the sandbox remembers it: its account, last four characters and SHA-256 (hex)."""

    account: str
    last4: str
    sha256: str


@lru_cache(maxsize=4096)
def read_key(token: str) -> Key | None:
    """The key behind `sk_<account>_<anything>`, or None for any other form."""
    match = _KEY_FORM.fullmatch(token)
    if match is None:
        return None
    return Key(match[1], token[-4:], key_digest(token))


def key_digest(token: str) -> str:
    """The hex SHA-256 under which a key is revoked and counted."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(slots=True)
class Part:
    """One part of a multipart body, in the order of arrival; `size` in bytes, `sha256` in hex."""

    name: str
    filename: str | None
    content_type: str | None
    size: int
    sha256: str


@dataclass(slots=True)
class Entry:
    """One request under /v1. `credits` grows when a task it started is billed; `status` 0 is no answer."""

    id: int
    at: float
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    account: str | None = None
    key_last4: str | None = None
    key_sha256: str | None = None
    model: str | None = None
    body_sha256: str | None = None
    body_length: int = 0
    body_text: str | None = None
    parts: list[Part] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    status: int = 0
    executed: bool = False
    credits: Decimal = Decimal(0)
    task_id: str | None = None


@dataclass(slots=True)
class KeyCounter:
    """What one key has done: requests of any kind, executions, task reads, credits billed."""

    account: str
    last4: str
    sha256: str
    requests: int = 0
    executions: int = 0
    reads: int = 0
    credits: Decimal = Decimal(0)


class Journal:
    """The last 10,000 requests and the counters of every key since the last reset."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=JOURNAL_LENGTH)
        self._counters: dict[str, KeyCounter] = {}
        self._next_id = 1
        self._with_text: deque[Entry] = deque()
        self._text_size = 0

    def open(self, at: float, line: tuple[str, str, str], headers: list[tuple[str, str]]) -> Entry:
        """Add an entry for a request; `line` is (method, path, query)."""
        entry = Entry(self._next_id, at, *line, headers)
        self._next_id += 1
        self._entries.append(entry)
        return entry

    def keep_text(self, entry: Entry, text: str) -> None:
        """Keep the text of a body; when all texts exceed 64 MiB, those of the oldest entries go."""
        entry.body_text = text
        self._with_text.append(entry)
        self._text_size += len(text)
        while self._text_size > _ALL_TEXTS_LIMIT or len(self._with_text) > JOURNAL_LENGTH:
            oldest = self._with_text.popleft()
            self._text_size -= len(oldest.body_text or "")
            oldest.body_text = None

    def counter(self, key: Key) -> KeyCounter:
        """The counter of a key, made at first use."""
        counter = self._counters.get(key.sha256)
        if counter is None:
            counter = KeyCounter(key.account, key.last4, key.sha256)
            self._counters[key.sha256] = counter
        return counter

    def last(self, limit: int) -> list[Entry]:
        """At most `limit` entries, the oldest of them first."""
        skip = max(0, len(self._entries) - limit)
        return [entry for index, entry in enumerate(self._entries) if index >= skip]

    def counters(self) -> list[KeyCounter]:
        """One counter a key, in order of first use."""
        return list(self._counters.values())

    @property
    def total(self) -> int:
        """How many requests were seen since the start or the last reset, also those no longer kept."""
        return self._next_id - 1


def masked_headers(raw: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Headers in order, with the secret part of Authorization replaced by its last four characters."""
    shown = []
    for name, value in raw:
        text = value.decode("latin-1")
        if name == b"authorization":
            text = _mask(text)
        shown.append((name.decode("latin-1"), text))
    return shown


def _mask(value: str) -> str:
    scheme, _, token = value.partition(" ")
    key = read_key(token.strip())
    if key is None:
        return f"{scheme} ***" if token else "***"
    return f"{scheme} sk_{key.account}_***{key.last4}"
