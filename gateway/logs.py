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
from contextlib import nullcontext, suppress
from contextvars import Context
from datetime import UTC, datetime
from typing import Any

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


def configure(level: str, style: str) -> None:
    """Sends every log line of the process to standard error, as `json` or `text`."""
    handler = BatchedLines()
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("gateway").setLevel(level.upper())


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
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except UnicodeEncodeError:  # half a character, as in file names that are not UTF-8
            return json.dumps(line, default=str)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields = " ".join(f"{name}={_plain(value)}" for name, value in _fields(record).items())
        line = f"{at} {record.levelname.lower():7} {_plain(record.getMessage())} {fields}".rstrip()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _plain(value: Any) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))


class BatchedLines(logging.Handler):
    """Writes to standard error: warnings at once, all else a moment later, many lines in one write.

    A write costs as much as making its line. What is not written yet goes before a warning, and when the process ends;
    killed, it loses what it said in the last hundredth of a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._timed: asyncio.AbstractEventLoop | None = None  # the loop that will write

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held."""
        try:
            self._lines.append(self.format(record))
            if record.levelno >= logging.WARNING or len(self._lines) >= LARGEST_BATCH or not self._later():
                self._write()
        except Exception:  # noqa: BLE001 - a line that cannot be written ends nothing
            self.handleError(record)

    def flush(self) -> None:
        """Writes what is there."""
        with self.lock or nullcontext():
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
        """As the kernel takes it in one piece: several workers may share a pipe, and their lines must not mix."""
        lines, self._lines = self._lines, []
        piece, size = "", 0
        for line in [*lines, ""]:
            length = len(line.encode(errors="backslashreplace")) + 1
            if piece and (size + length > LARGEST_WRITE or not line):
                sys.stderr.write(piece)
                sys.stderr.flush()
                piece, size = "", 0
            piece, size = f"{piece}{line}\n", size + length
