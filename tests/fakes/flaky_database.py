"""A real database that can be taken away and brought back, and counts who asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.db.direct import Direct
from gateway.db.engine import Database


@dataclass(frozen=True, slots=True)
class Gate:
    """Where one caller waits: `reached` when it is there, `opened` when it may go on."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


class FlakyDatabase(Database):
    """While `down`, every connection fails like one to a server that is gone. `asked` counts both kinds."""

    down = False
    asked = 0
    gate: Gate | None = None

    def hold_up(self) -> Gate:
        """The gate at which the next caller waits."""
        self.gate = Gate()
        return self.gate

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        await self._ask()
        async with super().transaction() as connection:
            yield connection

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        await self._ask()
        async with super().autocommit() as connection:
            yield connection

    async def call(self, function: str, *arguments: object) -> list[Any]:
        await self._ask()
        return await super().call(function, *arguments)

    async def ask(self, statement: Direct, **values: object) -> list[Any]:
        await self._ask()
        return await super().ask(statement, **values)

    async def close(self) -> None:
        """When nobody has a connection any more: what goes on beside a test is not cut off by its end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(0.01)
                while self.connections()[0]:
                    await asyncio.sleep(0.01)
        await super().close()

    async def _ask(self) -> None:
        self.asked += 1
        if self.down:
            raise errors.dependency_unavailable("down")
        if self.gate is not None:
            gate, self.gate = self.gate, None
            gate.reached.set()
            await gate.opened.wait()
