"""Answers too large for a row: one file each in a folder of the spool, for every process that shares it.

The folder has a cap of its own; what does not fit is not kept. Files whose record has gone are removed. A folder that
others can write to, or that is another user's, is not used: in the system's temporary directory anyone can make it.

A body that is on disk already gets a name there, where the system can do that; elsewhere it is copied.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from gateway import errors
from gateway.repeats.answer import Body
from gateway.spool import SpooledBody

log = logging.getLogger("gateway.repeats")

FOLDER = "pixapi-gateway-answers"
PIECE = 256 * 1024
COUNT_SECONDS, HURRIED_SECONDS = (
    1.0,
    0.1,
)  # how old the count of the folder may be, and may be when it is nearly full
NEARLY_FULL = 0.9  # of the cap
BRIEF = (
    0.75  # of the cap, for answers of use for seconds: the rest is for those that are relied on for longer
)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A body in a file."""

    path: Path
    size: int

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises GatewayError when the file has gone."""
        try:
            file = await asyncio.to_thread(self.path.open, "rb")
        except OSError:
            raise errors.answer_not_kept() from None
        try:
            while piece := await asyncio.to_thread(file.read, PIECE):
                yield piece
        finally:
            file.close()


class AnswerFiles:
    """At most `limit_bytes` in all below `folder`; `oldest` in seconds: no file is of use for longer."""

    def __init__(self, folder: Path, limit_bytes: int, oldest: float) -> None:
        self._folder = folder / FOLDER
        self._limit = limit_bytes
        self._oldest = oldest
        self._refused = False
        self._lock = threading.Lock()
        self._counted = 0
        self._counted_at = -math.inf
        self._writing = 0

    async def write(self, hold_id: UUID, body: Body, *, brief: bool = False) -> str | None:
        """The name of the file that has the body now; None when there is no room, or the disk fails. `brief`: it is
        of use for seconds only."""
        limit = int(self._limit * BRIEF) if brief else self._limit
        try:
            room = await asyncio.to_thread(self._reserve, body.size, limit)
        except OSError as error:
            log.warning("an answer is not kept", extra={"hold": str(hold_id), "reason": error.strerror})
            return None
        if not room:
            if room is not None:
                log.warning("an answer is not kept", extra={"hold": str(hold_id), "reason": "no_room"})
            return None
        name: str | None = None
        try:
            name = await self._named(hold_id, body)
        finally:
            self._release(body.size, there=name is not None)
        return name

    async def _named(self, hold_id: UUID, body: Body) -> str | None:
        try:
            linked = isinstance(body, SpooledBody) and await body.link(self._folder / hold_id.hex)
        except FileExistsError:  # it is kept once more, for a record that could not be written
            linked = True
        return hold_id.hex if linked else await self._copied(hold_id, body)

    async def _copied(self, hold_id: UUID, body: Body) -> str | None:
        path, half = self._folder / hold_id.hex, self._folder / f"{hold_id.hex}.half"
        try:
            file = await asyncio.to_thread(os.open, half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                async for chunk in body.chunks():
                    await asyncio.to_thread(_write_all, file, chunk)
            finally:
                os.close(file)
            await asyncio.to_thread(half.replace, path)
        except OSError as error:
            log.warning("an answer is not kept", extra={"hold": str(hold_id), "reason": error.strerror})
            await self.remove([half.name])
            return None
        except BaseException:
            self._remove([half.name])
            raise
        return hold_id.hex

    async def find(self, name: str) -> StoredFile | None:
        """The file of this name, if this machine has it."""
        return await asyncio.to_thread(self._find, name)

    async def remove(self, names: list[str]) -> None:
        await asyncio.to_thread(self._remove, names)

    async def clear(self) -> None:
        """Removes what nobody can ask for any more."""
        await asyncio.to_thread(self._clear)

    def _reserve(self, size: int, limit: int) -> bool | None:
        """Whether so many bytes fit the folder, which is there afterwards; None when it is not ours."""
        with suppress(FileExistsError):
            self._folder.mkdir(mode=0o700)
        if not self._is_ours():
            return None
        with self._lock:
            nearly_full = self._counted + self._writing + size > limit * NEARLY_FULL
            lasts = HURRIED_SECONDS if nearly_full else COUNT_SECONDS
            if time.monotonic() >= self._counted_at + lasts:
                self._counted = sum(found.st_size for _, found in self._files())
                self._counted_at = time.monotonic()
            if self._counted + self._writing + size > limit:
                return False
            self._writing += size
            return True

    def _release(self, size: int, *, there: bool) -> None:
        with self._lock:
            self._writing -= size
            self._counted += size if there else 0

    def _is_ours(self) -> bool:
        """Whether the folder is there, no link, our user's, and closed to all others."""
        try:
            found = self._folder.lstat()
        except OSError:
            return False
        private = found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        if stat.S_ISDIR(found.st_mode) and private:
            return True
        if not self._refused:
            self._refused = True
            log.warning(
                "large answers are not kept: their folder must be a directory of the gateway's user, closed to others; "
                "remove what is there, or set server.spool_dir to a directory of the gateway's own",
                extra={"detail": str(self._folder)},
            )
        return False

    def _find(self, name: str) -> StoredFile | None:
        path = self._folder / name
        try:
            return StoredFile(path, path.stat().st_size) if self._is_ours() else None
        except OSError:
            return None

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):  # another process has just removed it
                yield Path(entry.path), entry.stat()

    def _remove(self, names: list[str]) -> None:
        for name in names if self._is_ours() else ():
            with suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)
                self._counted_at = -math.inf

    def _clear(self) -> None:
        if not self._is_ours():
            return
        before = time.time() - self._oldest
        for path, found in self._files():
            if found.st_mtime < before:
                path.unlink(missing_ok=True)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
