"""What lies sealed in the database: under which master key, and how it comes under the first one.

Each batch of rows is locked in the order of their ids and changed by one statement in a short transaction, so it can
be done while gateways run and others change rows, stopped at any moment, and done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, LargeBinary, Table, Uuid, column, func, select, true, values
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db import audit
from gateway.db.engine import Database
from gateway.db.tables import upstream_keys, webhooks
from gateway.pool.vault import Vault, VaultError

BATCH = 100
_NO_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class SealedTable:
    """A table with sealed rows: what they are called, the column that names one, and which rows count."""

    kind: str
    table: Table
    label: str
    live: ColumnElement[bool]
    fingerprint: bool = False  # whether it keeps a digest of the secret too, by the same master key

    @property
    def columns(self) -> list[Any]:
        return [self.table.c.id, self.table.c.secret, self.table.c[self.label].label("label")]


SEALED = (
    SealedTable(
        "upstream-key", upstream_keys, "label", upstream_keys.c.removed_at.is_(None), fingerprint=True
    ),
    SealedTable("webhook", webhooks, "id", true()),  # its address may be a secret too
)


@dataclass(slots=True)
class Sealing:
    """How many rows each master key opens, by its position, and which rows none does: (kind, label)."""

    under: list[int]
    closed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.under) + len(self.closed)


async def survey(connection: AsyncConnection, vault: Vault) -> Sealing:
    """Tries every sealed row."""
    found = Sealing([0] * len(vault.names))
    for sealed in SEALED:
        query = select(*sealed.columns).where(sealed.live).order_by(sealed.table.c.id)
        for row in await connection.execute(query):
            try:
                found.under[vault.position(row.id, bytes(row.secret))] += 1
            except VaultError:
                found.closed.append((sealed.kind, str(row.label)))
    return found


async def opened(connection: AsyncConnection, vault: Vault) -> dict[UUID, str | None]:
    """The secret of every upstream key that was not removed; None for one that no master key opens."""
    table = upstream_keys.c
    found: dict[UUID, str | None] = {}
    for row in await connection.execute(select(table.id, table.secret).where(table.removed_at.is_(None))):
        try:
            found[row.id] = vault.open(row.id, bytes(row.secret))
        except VaultError:
            found[row.id] = None
    return found


async def rotate(database: Database, vault: Vault, actor: str, step: Callable[[int, int], None]) -> int:
    """Seals every row anew that the first master key does not open; how many that were.

    Rows that no key opens stay as they are. `step` is told after each batch how many rows were looked at, of how many.
    Each batch with a change writes one audit entry with it.
    """
    total = await _count(database)
    looked = changed = 0
    for sealed in SEALED:
        after = _NO_ID
        while True:
            async with database.transaction() as connection:
                rows = await _batch(connection, sealed, after)
                moved = await _reseal(connection, sealed, rows, vault)
                if moved:
                    await audit.write(
                        connection,
                        actor=actor,
                        action="master-key.rotate",
                        subject=("master-key", vault.names[0]),
                        detail={"sealed": sealed.kind, "labels": moved},
                    )
            looked, changed = looked + len(rows), changed + len(moved)
            step(looked, total)
            if len(rows) < BATCH:
                break
            after = rows[-1].id
    return changed


async def _count(database: Database) -> int:
    async with database.autocommit() as connection:
        counts = [
            (
                await connection.execute(select(func.count()).select_from(sealed.table).where(sealed.live))
            ).scalar_one()
            for sealed in SEALED
        ]
    return sum(counts)


async def _batch(connection: AsyncConnection, sealed: SealedTable, after: UUID) -> list[Any]:
    query = select(*sealed.columns).where(sealed.live, sealed.table.c.id > after).order_by(sealed.table.c.id)
    return list((await connection.execute(query.limit(BATCH).with_for_update())).all())


async def _reseal(
    connection: AsyncConnection, sealed: SealedTable, rows: Sequence[Any], vault: Vault
) -> list[str]:
    """Brings those of the locked rows under the first key that another one opens; their labels."""
    table, changes, moved = sealed.table, [], []
    for row in rows:
        old = bytes(row.secret)
        try:
            if vault.position(row.id, old) == 0:
                continue
        except VaultError:
            continue
        secret = vault.open(row.id, old)
        fingerprint = vault.fingerprint(secret) if sealed.fingerprint else b""
        changes.append((row.id, vault.seal(row.id, secret), fingerprint))
        moved.append(str(row.label))
    if changes:
        new = values(
            column("id", Uuid), column("secret", LargeBinary), column("fingerprint", LargeBinary), name="new"
        ).data(changes)
        changed = {"secret": new.c.secret} | (
            {"fingerprint": new.c.fingerprint} if sealed.fingerprint else {}
        )
        await connection.execute(table.update().where(table.c.id == new.c.id).values(**changed))
    return moved
