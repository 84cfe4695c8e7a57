"""A real database that can be taken away and brought back, and counts who asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.db.engine import Database


class FlakyDatabase(Database):
    """While `down`, every connection fails like one to a server that is gone. `asked` counts both kinds."""

    down = False
    asked = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        self._ask()
        async with super().transaction() as connection:
            yield connection

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        self._ask()
        async with super().autocommit() as connection:
            yield connection

    def _ask(self) -> None:
        self.asked += 1
        if self.down:
            raise errors.dependency_unavailable("down")
