"""Upstream keys without Postgres: the rows a Pool reads, and the writes it makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Select, Update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.clock import Clock
from gateway.db.engine import Database
from gateway.pool.pool import Pool
from gateway.pool.vault import Vault

VAULT = Vault(["master-key-of-the-pool-tests-0123456789"])
NOW = 1_800_000_000.0  # the database's clock stands still


class KeyTable(Database):
    """Stands in for the database of a Pool; `down` makes every connection fail. What is written is noted, no more.

    Each of `gates` holds the answer to one reading up, made of what the rows were when it was asked.
    """

    def __init__(self) -> None:
        self.rows: list[SimpleNamespace] = []
        self.writes: list[dict[str, Any]] = []
        self.gates: list[asyncio.Event] = []
        self.slow: list[asyncio.Event] = []
        self.down = False
        self.trials = True  # whether a trial is free to take

    def add(self, label: str, **fields: Any) -> UUID:
        """A new active key of an account of its own, with the secret `sk_<label>`; its id."""
        ident = UUID(int=len(self.rows) + 1)
        plain = {
            "account": label,
            "weight": 1,
            "max_in_flight": None,
            "state": "active",
            "now_at": NOW,
            "paid_at": None,
            "reads_at": None,
            "check_at": None,
            "trial_at": None,
            "rest_reason": None,
            "rest_count": 0,
            "changed_at": NOW - 3600,
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

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self.autocommit() as connection:
            yield connection

    async def execute(self, statement: Any) -> SimpleNamespace:
        if isinstance(statement, Select):
            return await self._read(statement)
        if self.slow:
            await self.slow.pop(0).wait()
        if isinstance(statement, Update):
            self.writes.append(statement.compile().params)
        return SimpleNamespace(one_or_none=lambda: SimpleNamespace() if self.trials else None)

    async def _read(self, statement: Any) -> SimpleNamespace:
        wanted = set(statement.compile().params.values())
        rows: Sequence[SimpleNamespace] = [SimpleNamespace(**vars(row)) for row in self.rows]
        one = next((row for row in rows if row.id in wanted), None)
        if one is None and self.gates:
            await self.gates.pop(0).wait()
        return SimpleNamespace(all=lambda: rows, one_or_none=lambda: one)


async def pool_of(table: KeyTable, clock: Clock, seed: int = 1) -> Pool:
    """A pool that has read the table."""
    pool = Pool(table, VAULT, clock, Random(seed))
    await pool.refresh()
    return pool
