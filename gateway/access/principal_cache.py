"""Principals by digest, each for a fixed time. Pure: the caller brings the time.

An entry lives `ttl` seconds from the moment its look-up was begun, however often it is used; five at most while this
process does not hear of changes. Keys nobody has are
remembered as such, apart from the others: whoever makes up well-formed keys pushes out made-up keys only.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from gateway.access.principal import Principal

KNOWN = 100_000
UNKNOWN = 10_000
UNHEARD_SECONDS = 5.0  # within which changed limits hold everywhere, whatever becomes of Redis


@dataclass(frozen=True, slots=True)
class Entry:
    """What a look-up begun at `asked_at` found: a principal, or that there is none for a key with this public id."""

    asked_at: float
    key_id: str
    principal: Principal | None


class PrincipalCache:
    """At most `known` principals and `unknown` keys that are none; the oldest go first."""

    def __init__(self, ttl: float, known: int = KNOWN, unknown: int = UNKNOWN) -> None:
        self._ttl = ttl
        self._known = _Shelf(known)
        self._unknown = _Shelf(unknown)

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    def get(self, digest: bytes, now: float, *, hearing: bool = True) -> Entry | None:
        """The entry of this digest while it is fresh."""
        entry = self._known.entries.get(digest) or self._unknown.entries.get(digest)
        return entry if entry is not None and self.fresh(entry.asked_at, now, hearing=hearing) else None

    def fresh(self, asked_at: float, now: float, *, hearing: bool = True) -> bool:
        """Whether what was asked for at `asked_at` may still be used at `now`; `hearing` of changes, or not."""
        return now - asked_at < (self._ttl if hearing else min(self._ttl, UNHEARD_SECONDS))

    def put(self, digest: bytes, entry: Entry, now: float) -> None:
        """Keeps an entry instead of an earlier one of this digest."""
        self._known.remove(digest)
        self._unknown.remove(digest)
        shelf = self._unknown if entry.principal is None else self._known
        shelf.put(digest, entry, now - self._ttl)

    def forget_key(self, key_id: str) -> None:
        """Drops what is known of the key with this public id, also that it is none: its expiry may have moved."""
        self._known.remove_named(key_id)
        self._unknown.remove_named(key_id)

    def forget_team(self, team_id: str) -> None:
        """Drops the principals of this team."""
        self._known.remove_named(team_id)

    def clear(self) -> None:
        """Drops everything."""
        self._known.clear()
        self._unknown.clear()


class _Shelf:
    """Entries in the order they were put, which is nearly that of their age, found by digest and by name."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._named: dict[str, set[bytes]] = {}  # digests by key id and by team id, which never look alike

    def __len__(self) -> int:
        return len(self.entries)

    def put(self, digest: bytes, entry: Entry, expired: float) -> None:
        """Adds an entry; takes away, oldest first, what was asked for at `expired` or before, and what is too many."""
        self.entries[digest] = entry
        for name in _names(entry):
            self._named.setdefault(name, set()).add(digest)
        while self.entries:
            oldest = next(iter(self.entries))
            if self.entries[oldest].asked_at > expired and len(self) <= self._limit:
                break
            self.remove(oldest)

    def remove(self, digest: bytes) -> None:
        entry = self.entries.pop(digest, None)
        for name in () if entry is None else _names(entry):
            self._named[name].discard(digest)
            if not self._named[name]:
                del self._named[name]

    def remove_named(self, name: str) -> None:
        for digest in list(self._named.get(name, ())):
            self.remove(digest)

    def clear(self) -> None:
        self.entries.clear()
        self._named.clear()


def _names(entry: Entry) -> tuple[str, ...]:
    if entry.principal is None:
        return (entry.key_id,)
    return (entry.key_id, str(entry.principal.team_id))
