"""Upstream keys without Postgres: the rows a Pool reads, and the writes it makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.clock import Clock
from gateway.db.engine import Database
from gateway.pool.pool import Pool
from gateway.pool.vault import Vault

VAULT = Vault(["master-key-of-the-pool-tests-0123456789"])


class KeyTable(Database):
    """Stands in for the database of a Pool; `down` makes every connection fail.

    Each of `gates` holds the answer to one reading up, made of what the rows were when it was asked.
    """

    def __init__(self) -> None:
        self.rows: list[SimpleNamespace] = []
        self.writes: list[dict[str, Any]] = []
        self.gates: list[asyncio.Event] = []
        self.slow: list[asyncio.Event] = []
        self.down = False

    def add(self, label: str, **fields: Any) -> UUID:
        """A new active key of an account of its own, with the secret `sk_<label>`; its id."""
        ident = UUID(int=len(self.rows) + 1)
        plain = {
            "account": label,
            "weight": 1,
            "max_in_flight": None,
            "state": "active",
            "paid_rest": None,
            "reads_rest": None,
            "rest_reason": None,
            "rest_count": 0,
        }
        sealed = VAULT.seal(ident, f"sk_{label}")
        self.rows.append(SimpleNamespace(id=ident, label=label, secret=sealed, **(plain | fields)))
        return ident

    def hold_a_write_up(self) -> asyncio.Event:
        """The next write takes until the event is set."""
        self.slow.append(asyncio.Event())
        return self.slow[-1]

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        if self.down:
            raise errors.dependency_unavailable("down")
        yield cast("AsyncConnection", self)

    async def execute(self, statement: Any) -> SimpleNamespace:
        if isinstance(statement, Select):
            rows: Sequence[SimpleNamespace] = [SimpleNamespace(**vars(row)) for row in self.rows]
            if self.gates:
                await self.gates.pop(0).wait()
            return SimpleNamespace(all=lambda: rows)
        if self.slow:
            await self.slow.pop(0).wait()
        self.writes.append(statement.compile().params)
        return SimpleNamespace()


async def pool_of(table: KeyTable, clock: Clock, seed: int = 1) -> Pool:
    """A pool that has read the table."""
    pool = Pool(table, VAULT, clock, Random(seed))
    await pool.refresh()
    return pool
