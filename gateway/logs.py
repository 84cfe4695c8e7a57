"""Log lines: what the gateway says about itself, by allow-list.

A log line is one JSON object (or one line of text with `log.format = "text"`) of named fields. Only the fields
below are ever written, so a prompt, a body or a key cannot get into a line by accident. Field values are escaped, so
nothing a client sends can forge a line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from contextlib import nullcontext, suppress
from contextvars import Context
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

FIELDS = (
    "request_id",
    "method",
    "path",
    "status",
    "reason",
    "milliseconds",
    "upstream_ms",
    "team",
    "key",
    "model",
    "operation",
    "hold",
    "task_id",
    "upstream_key",
    "account",
    "attempts",
    "cache",
    "client",
    "use",
    "actor",
    "setting",
    "detail",
)

BATCH_SECONDS = 0.01
LARGEST_BATCH = 256  # lines
LARGEST_WRITE = 4096  # bytes: a pipe takes so many in one piece
MOST_KEPT = 4096  # lines that standard error did not take

_REQUEST = b'{"at":"%b.%03d+00:00","level":"info","logger":"gateway.access","event":"request",%b'

_access = logging.getLogger("gateway.access")
_encoder = msgspec.json.Encoder(enc_hook=str)


class RequestLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What the access log says of one request; what is None is left out. Named and ordered as in `FIELDS`."""

    request_id: str
    method: str | None = None
    path: str | None = None
    status: int
    reason: str | None = None
    milliseconds: float | None = None
    upstream_ms: int | None = None
    team: str | None = None
    key: str | None = None
    model: str | None = None
    operation: str | None = None
    hold: UUID | None = None
    task_id: str | None = None
    upstream_key: str | None = None
    attempts: int | None = None
    cache: str | None = None
    client: str | None = None


def configure(level: str, style: str) -> None:
    """Sends every log line of the process to standard error, as `json` or `text`."""
    root = logging.getLogger()
    root.handlers = [BatchedLines(_JsonFormatter() if style == "json" else _TextFormatter())]
    root.setLevel(logging.WARNING)
    logging.getLogger("gateway").setLevel(level.upper())


def request(line: RequestLine) -> None:
    """One line of the access log: the line `logging` makes of it, without the records in between."""
    if not _access.isEnabledFor(logging.INFO):
        return
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], BatchedLines):
        handlers[0].request(line)
    else:
        _access.info("request", extra=msgspec.structs.asdict(line))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = record.__dict__
    return {name: given[name] for name in FIELDS if given.get(name) is not None}


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _json(line).decode()

    def request(self, line: RequestLine) -> bytes:
        seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
        return _REQUEST % (_second(seconds), milliseconds, _json(line)[1:])


@lru_cache(maxsize=1)
def _second(seconds: int) -> bytes:
    """The part of the time that many lines share."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def _json(value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:  # half a character, as in file names that are not UTF-8
        return json.dumps(value if isinstance(value, dict) else _given(value), default=str).encode()


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line = _text(at, record.levelname.lower(), _plain(record.getMessage()), _fields(record))
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line

    def request(self, line: RequestLine) -> bytes:
        return _text(datetime.now(UTC), "info", "request", _given(line)).encode()


def _text(at: datetime, level: str, event: str, fields: dict[str, Any]) -> str:
    told = " ".join(f"{name}={_plain(value)}" for name, value in fields.items())
    return f"{at:%H:%M:%S} {level:7} {event} {told}".rstrip()


def _given(line: RequestLine) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(line).items() if value is not None}


def _plain(value: Any) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))


class BatchedLines(logging.Handler):
    """Writes to standard error: warnings at once, all else a moment later, many lines in one write.

    A write costs as much as making its line. What is not written yet goes before a warning, and when the process ends;
    killed, it loses what it said in the last hundredth of a second.
    """

    def __init__(self, style: _JsonFormatter | _TextFormatter) -> None:
        super().__init__()
        self.setFormatter(style)
        self._style = style
        self._lines: list[bytes] = []
        self._timed: asyncio.AbstractEventLoop | None = None  # the loop that will write

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held."""
        try:
            text = self.format(record).encode(errors="backslashreplace")
            self._add(text, at_once=record.levelno >= logging.WARNING)
        except Exception:  # noqa: BLE001 - a line that cannot be written ends nothing
            self.handleError(record)

    def request(self, line: RequestLine) -> None:
        """A line that is not urgent, by no record."""
        text = self._style.request(line)
        with self.lock or nullcontext():
            try:
                self._add(text, at_once=False)
            except OSError:
                return  # nobody is left to be told

    def flush(self) -> None:
        """Writes what is there."""
        with self.lock or nullcontext():
            self._write()

    def _add(self, line: bytes, *, at_once: bool) -> None:
        self._lines.append(line)
        if at_once or len(self._lines) % LARGEST_BATCH == 0 or not self._later():
            self._write()

    def _later(self) -> bool:
        """Whether this thread's loop will write."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._timed is not loop:
            self._timed = loop
            loop.call_later(BATCH_SECONDS, self._due, context=Context())
        return True

    def _due(self) -> None:
        self._timed = None
        with suppress(OSError):  # nobody is left to be told
            self.flush()

    def _write(self) -> None:
        """As the kernel takes it in one piece: several workers may share a pipe, and their lines must not mix.

        What cannot be written is kept for the next time, the last `MOST_KEPT` lines of it.
        """
        try:
            while self._lines:
                count = self._fitting()
                sys.stderr.write(b"\n".join([*self._lines[:count], b""]).decode())
                sys.stderr.flush()
                del self._lines[:count]
        except OSError:
            del self._lines[:-MOST_KEPT]
            raise

    def _fitting(self) -> int:
        """How many of the lines go into one write; one at least."""
        count = size = 0
        for line in self._lines:
            size += len(line) + 1
            if count and size > LARGEST_WRITE:
                break
            count += 1
        return count
