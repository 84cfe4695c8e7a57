"""Answers too large for a row: one file each in a folder of the spool, for every process that shares it.

The folder has a cap of its own; what does not fit is not kept. Files whose record has gone are removed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from gateway import errors
from gateway.repeats.answer import Body

log = logging.getLogger("gateway.repeats")

FOLDER = "pixapi-gateway-answers"
PIECE = 256 * 1024


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

    async def write(self, hold_id: UUID, body: Body) -> str | None:
        """The name of the file that has the body now; None when there is no room, or the disk fails."""
        path, half = self._folder / hold_id.hex, self._folder / f"{hold_id.hex}.half"
        try:
            if await asyncio.to_thread(self._used) + body.size > self._limit:
                log.warning("an answer is not kept", extra={"hold": str(hold_id), "reason": "no_room"})
                return None
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
        path = self._folder / name
        try:
            return StoredFile(path, (await asyncio.to_thread(path.stat)).st_size)
        except OSError:
            return None

    async def remove(self, names: list[str]) -> None:
        await asyncio.to_thread(self._remove, names)

    async def clear(self) -> None:
        """Removes what nobody can ask for any more."""
        await asyncio.to_thread(self._clear)

    def _used(self) -> int:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return sum(found.st_size for _, found in self._files())

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):  # another process has just removed it
                yield Path(entry.path), entry.stat()

    def _remove(self, names: list[str]) -> None:
        for name in names:
            with suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)

    def _clear(self) -> None:
        if not self._folder.exists():
            return
        before = time.time() - self._oldest
        for path, found in self._files():
            if found.st_mtime < before:
                path.unlink(missing_ok=True)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
