"""The upstream keys as Postgres knows them, their health as this process does, and what it means to use one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select

from gateway.clock import Clock
from gateway.db.engine import Database
from gateway.db.tables import upstream_keys
from gateway.limits.limits import Taken
from gateway.pool import rests
from gateway.pool.health import HEALTHY, Health, Use
from gateway.pool.vault import Vault, VaultError

log = logging.getLogger("gateway.pool")


@dataclass(slots=True)
class Load:
    """How many calls of one use this process has under way with a key."""

    in_flight: int = 0


@dataclass(slots=True)
class Standing:
    """How a key is doing, as far as this process knows. It stays when the key is read anew."""

    health: Health = HEALTHY
    paid: Load = field(default_factory=Load)
    reads: Load = field(default_factory=Load)

    def load(self, use: Use) -> Load:
        return self.paid if use is Use.PAID else self.reads


@dataclass(frozen=True, slots=True)
class UpstreamKey:
    """One pooled key. `secret` never leaves `pool/`, `upstream/` and the wire."""

    id: UUID
    label: str
    account: str
    secret: str = field(repr=False)
    weight: int
    max_in_flight: int | None
    state: str
    standing: Standing = field(default_factory=Standing, compare=False)


class Lease(msgspec.Struct):
    """One call's use of a key since a moment. Give it back with `Pool.report` or, when nothing came of it,
    `Pool.release`. `load` counts it; `trial`: it is the one call that tries an empty account."""

    key: UpstreamKey
    use: Use
    since: float
    load: Load
    trial: bool = False
    place: Taken | None = None
    open: bool = True


class KeyRing:
    """Every key that is not removed. `newer_than` says of which keys this process has noted something that a reading
    asked for at a moment may not show: of these, what is known here stays."""

    def __init__(
        self, database: Database, vault: Vault, clock: Clock, newer_than: Callable[[float], set[UUID]]
    ) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._newer_than = newer_than
        self._sealed: dict[UUID, bytes] = {}
        self._refreshing = asyncio.Lock()  # an older reading must not overwrite a newer one
        self._readings = count(1)
        self._last_reading = 0
        self.keys: dict[UUID, UpstreamKey] = {}
        self.active: list[UpstreamKey] = []  # those for new paid calls
        self.accounts: frozenset[str] = frozenset()  # of these

    async def refresh(self) -> None:
        """Reads keys, states and rests from Postgres; those who ask meanwhile share the next reading."""
        wanted = next(self._readings)
        async with self._refreshing:
            if self._last_reading > wanted:
                return
            reading, asked = next(self._readings), self._clock.monotonic()
            async with self._database.autocommit() as connection:
                rows = (await connection.execute(_KEYS)).all()
            self._take_over(rows, asked)
            self._last_reading = reading

    def _take_over(self, rows: Sequence[Any], asked: float) -> None:
        now = self._clock.monotonic()
        self.keys = {row.id: key for row in rows if (key := self._open(row)) is not None}
        self._sealed = {row.id: row.secret for row in rows}
        self.active = [key for key in self.keys.values() if key.state == "active"]
        self.accounts = frozenset(key.account for key in self.active)
        # What this process noted after it asked is newer than what it was told.
        newer = self._newer_than(asked)
        for row in rows:
            if row.id in self.keys and row.id not in newer:
                self.keys[row.id].standing.health = rests.health_of(row, now)

    def _open(self, row: Any) -> UpstreamKey | None:
        known = self.keys.get(row.id)
        if known is not None and self._sealed.get(row.id) == row.secret:
            secret = known.secret
        else:
            try:
                secret = self._vault.open(row.id, row.secret)
            except VaultError as error:
                log.error(
                    "upstream key cannot be opened", extra={"upstream_key": row.label, "reason": str(error)}
                )
                if known is None:
                    return None
                # Sealed anew under a master key that this process was not given. A row's secret never changes.
                secret = known.secret
        standing = Standing() if known is None else known.standing
        return UpstreamKey(
            row.id, row.label, row.account, secret, row.weight, row.max_in_flight, row.state, standing
        )


_KEYS = (
    select(
        upstream_keys.c.id,
        upstream_keys.c.label,
        upstream_keys.c.account,
        upstream_keys.c.secret,
        upstream_keys.c.weight,
        upstream_keys.c.max_in_flight,
        upstream_keys.c.state,
        *rests.HEALTH,
    )
    .where(upstream_keys.c.removed_at.is_(None))
    .order_by(upstream_keys.c.id)
)
