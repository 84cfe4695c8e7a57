"""Bodies that may be large: up to 1 MiB in memory, beyond it in a temporary file without a name.

A file without a name cannot be left behind, not even by kill -9. All bodies of a process share one budget
of bytes on disk; beyond it, and when the disk itself fails, the answer is 503 `spool_full`. What the disk said then is
in the log.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from gateway import errors

log = logging.getLogger("gateway.spool")

MEMORY_LIMIT = 1024 * 1024
PIECE = 256 * 1024
LOG_EVERY_SECONDS = 60.0
_TMPFILE: int | None = getattr(os, "O_TMPFILE", None)
_NO_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)
FULL = 0.9  # of the budget


class SpoolBudget:
    """Hands out bodies and counts what they hold on disk, in bytes (`used`, never above `limit_bytes`)."""

    def __init__(self, limit_bytes: int, folder: Path, memory_limit: int = MEMORY_LIMIT) -> None:
        self.limit_bytes = limit_bytes
        self.folder = folder
        self.memory_limit = memory_limit
        self.used = 0
        self._log_again_at = 0.0

    def body(self) -> SpooledBody:
        """A new, empty body; the caller closes it."""
        return SpooledBody(self)

    def take(self, count: int) -> None:
        """Reserve `count` bytes on disk; `errors.overloaded` when they do not fit."""
        if self.used + count > self.limit_bytes:
            raise spool_full()
        self.used += count

    def give_back(self, count: int) -> None:
        self.used -= count

    def check_room(self) -> None:
        """Raises `errors.overloaded` while little is left: asked before a call is paid for, whose answer needs some."""
        if self.used > self.limit_bytes * FULL:
            raise spool_full()

    def failed(self, error: OSError) -> None:
        """Logs what the disk said, at most once a minute: while it fails, every large body does."""
        now = time.monotonic()
        if now >= self._log_again_at:
            self._log_again_at = now + LOG_EVERY_SECONDS
            reason = error.strerror or str(error)
            log.error("the spool folder cannot be used", extra={"reason": reason, "detail": str(self.folder)})


class SpooledBody:
    """One body: written once by one task, then read any number of times, also by several readers.

    Also an async context manager that closes it. Failed or cancelled writes close it at once; using a closed
    body is a `ValueError`.
    """

    __slots__ = ("_budget", "_closed", "_file", "_in_file", "_tail", "_taken", "size")

    def __init__(self, budget: SpoolBudget) -> None:
        self.size = 0
        self._budget = budget
        self._tail: bytes | bytearray = b""  # what is not (yet) in the file
        self._file: _UnnamedFile | None = None
        self._in_file = 0
        self._taken = 0
        self._closed = False

    @property
    def in_memory(self) -> bool:
        """Whether nothing of it is on disk."""
        return self._file is None

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`. `errors.overloaded` (`spool_full`) when it fits neither memory nor disk."""
        if not self.keep(chunk):
            self.size += len(chunk)
            await self._spill(chunk)

    def keep(self, chunk: bytes) -> bool:
        """Append `chunk` without the disk; False, and nothing is appended, when that has to be asked: by `write`."""
        if self._closed:
            raise _closed()
        size, tail = self.size + len(chunk), self._tail
        if size - self._in_file > (self._budget.memory_limit if self._file is None else PIECE):
            return False
        self.size = size
        if not tail:
            self._tail = chunk  # most bodies are one piece, which is kept as it is
        elif isinstance(tail, bytearray):
            tail += chunk
        else:
            self._tail = bytearray(tail)
            self._tail += chunk
        return True

    def read_small(self) -> bytes:
        """All of it at once; only while it is in memory (`ValueError` otherwise)."""
        if self._closed:
            raise _closed()
        if self._file is not None:
            raise ValueError("this body is on disk; read it in chunks")
        return bytes(self._tail)

    async def chunks(self, piece: int = PIECE) -> AsyncGenerator[bytes, None]:
        """What was written when the reading began, in pieces of at most `piece` bytes.

        `errors.internal_error` when the file cannot be read back.
        """
        self._check_open()
        size = self.size
        position = 0
        while position < size:
            self._check_open()
            if self._file is not None and position < self._in_file:
                found = await self._read(self._file, min(piece, self._in_file - position), position)
            else:
                start = position - self._in_file
                found = bytes(self._tail[start : start + piece])
            position += len(found)
            yield found

    async def link(self, path: Path) -> bool:
        """Gives the body, once it is written, a name as well, all at once and without copying what is on disk; it
        stays readable here, and the name remains when it is closed. False where that cannot be done: it is small, the
        system cannot do it, or there is no room. `FileExistsError` when something has this name."""
        self._check_open()
        file, tail, end = self._file, self._tail, self.size
        if file is None or not file.may_link:
            return False
        try:
            self._budget.take(end - self._taken)
            self._taken = end
            await asyncio.to_thread(file.link, tail, end - len(tail), path)
        except FileExistsError:
            raise
        except (OSError, errors.GatewayError):
            return False
        if not self._closed:
            self._in_file, self._tail = end, b""
        return True

    def close(self) -> None:
        """Forget the body and give its disk space back. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._tail = b""
        if self._file is not None:
            self._file.close()
        if self._taken:
            self._budget.give_back(self._taken)
            self._taken = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _spill(self, chunk: bytes) -> None:
        """Move the tail, and `chunk` behind it, to the file. The body is closed when that fails or is cancelled."""
        tail, self._tail = self._tail, b""
        count = len(tail) + len(chunk)
        try:
            self._budget.take(count)
            self._taken += count
            if self._file is None:
                self._file = _UnnamedFile(self._budget.folder)
            await asyncio.to_thread(self._file.write_at, (tail, chunk), self._in_file)
            self._in_file += count
        except OSError as error:
            self._budget.failed(error)
            self.close()
            raise spool_full() from None
        except BaseException:  # cancelled, or no budget: nobody can use half a body
            self.close()
            raise

    async def _read(self, file: _UnnamedFile, count: int, position: int) -> bytes:
        # A thread's turn costs more than copying what the kernel has in memory; it is for the disk.
        if found := file.read_cached(count, position):
            await asyncio.sleep(0)  # who reads much must not keep everybody else waiting
            return found
        try:
            found = await asyncio.to_thread(file.read_at, count, position)
        except OSError as error:
            self._budget.failed(error)
            raise errors.internal_error() from None
        if not found:
            raise errors.internal_error()
        return found

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()


class _UnnamedFile:
    """A temporary file without a name; the calls that touch the disk run in threads.

    `close` may come while a thread is still in `write_at` or `read_at` (its task was cancelled): the file is
    then closed by that thread, since its descriptor could otherwise be another file's by now.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._running = 0
        self._closed = False
        self._tells = True  # what of it is in memory
        self.may_link = False

    def write_at(self, parts: Sequence[bytes | bytearray], position: int) -> None:
        """Write all of `parts`, one behind the other; `OSError` when the disk does not take it."""
        descriptor = self._begin()
        try:
            for part in parts:
                _write_all(descriptor, part, position)
                position += len(part)
        finally:
            self._end()

    def link(self, tail: bytes | bytearray, position: int, path: Path) -> None:
        """Write `tail`, then give the file this name; `OSError` when either fails."""
        descriptor = self._begin()
        try:
            _write_all(descriptor, tail, position)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # With a folder's descriptor Python takes linkat, which alone follows the link in /proc.
                os.link(f"/proc/self/fd/{descriptor}", path.name, dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
        finally:
            self._end()

    def read_at(self, count: int, position: int) -> bytes:
        """At most `count` bytes; none only at the end of the file."""
        descriptor = self._begin()
        try:
            return os.pread(descriptor, count, position)
        finally:
            self._end()

    def read_cached(self, count: int, position: int) -> bytes:
        """Like `read_at`, in no time: what the kernel has of it in memory; none also where that cannot be told."""
        if _NO_WAIT is None or not self._tells or self._file is None or self._closed:
            return b""
        buffer = bytearray(count)
        try:
            found = os.preadv(self._file.fileno(), [buffer], position, _NO_WAIT)
        except OSError as error:
            self._tells = error.errno == errno.EAGAIN  # not every file system does
            return b""
        return bytes(memoryview(buffer)[:found])

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._close_if_idle()

    def _begin(self) -> int:
        with self._lock:
            if self._closed:
                raise OSError("closed before it was used")
            if self._file is None:
                self._file, self.may_link = _unnamed(self._folder)
            self._running += 1
            return self._file.fileno()

    def _end(self) -> None:
        with self._lock:
            self._running -= 1
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._closed and self._running == 0 and self._file is not None:
            self._file.close()
            self._file = None


def _unnamed(folder: Path) -> tuple[IO[bytes], bool]:
    """A file without a name, and whether it can be given one: not those of `tempfile`, which opens them with O_EXCL."""
    if _TMPFILE is not None:
        with suppress(OSError):  # not on every file system
            descriptor = os.open(folder, _TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            return os.fdopen(descriptor, "r+b", buffering=0), True
    return tempfile.TemporaryFile(dir=folder, buffering=0), False


def _write_all(descriptor: int, data: bytes | bytearray, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view = view[written:]
        position += written


def _closed() -> ValueError:
    return ValueError("this body is closed")


def spool_full() -> errors.GatewayError:
    return errors.overloaded(
        "The gateway has no room for this body now. Nothing was sent; try again in a moment.", "spool_full"
    )
