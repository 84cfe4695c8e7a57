"""Which pepper signed which keys and tokens, and how they come under a new one: when they are used.

A digest can only be made anew from the key's text, which is there for a moment when the key is used. That happens from
the time `secrets rotate` was run with the new pepper first: a gateway that was not given the new pepper yet could not
find a key that another has signed with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Table, Update, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.key_format import Peppers
from gateway.db import audit
from gateway.db.tables import NOW, admin_tokens, audit_entries, team_keys

SUBJECT = "pepper"
_LIVE: dict[str, tuple[Table, ColumnElement[bool]]] = {
    "team_keys": (
        team_keys,
        team_keys.c.revoked_at.is_(None)
        & or_(team_keys.c.expires_at.is_(None), team_keys.c.expires_at > NOW),
    ),
    "admin_tokens": (admin_tokens, admin_tokens.c.revoked_at.is_(None)),
}


@dataclass(frozen=True, slots=True)
class Used:
    """A row that was just found by its digest: as it is stored, with the name of its pepper if that is noted."""

    id: str | UUID
    digest: bytes
    pepper: str | None


@dataclass(frozen=True, slots=True)
class Signed:
    """Keys or tokens that still work, under one pepper: its name as in `Peppers.names`, None when not noted yet."""

    table: str
    pepper: str | None
    count: int
    last_used_at: datetime | None


async def sign_anew(
    connection: AsyncConnection, table: Table, used: Used, digests: Sequence[bytes], peppers: Peppers
) -> None:
    """Puts a row under the first pepper, if that is allowed by now, or notes which one it is under.

    `digests` are those of the key's text, as `Peppers.digests` gives them. Waits for nobody: a row that is locked, or
    changed meanwhile, has its turn at its next use.
    """
    position = digests.index(used.digest)
    if position == 0 or used.pepper is None:
        noted = {"pepper": peppers.names[position]}
        await connection.execute(_change(table, used).values(**noted))
    if position > 0:
        allowed = (
            select(audit_entries.c.id)
            .where(
                audit_entries.c.subject_type == SUBJECT,
                audit_entries.c.subject_id == peppers.names[0],
            )
            .exists()
        )
        signed = {"digest": digests[0], "pepper": peppers.names[0]}
        await connection.execute(_change(table, used).where(allowed).values(**signed))


def _change(table: Table, used: Used) -> Update:
    free = (
        select(table.c.id)
        .where(table.c.id == used.id, table.c.digest == used.digest)
        .with_for_update(skip_locked=True)
    )
    return table.update().where(table.c.id == free.scalar_subquery())


async def begin(connection: AsyncConnection, actor: str, peppers: Peppers) -> bool:
    """Lets gateways sign keys anew with the first pepper; false when they do already. One audit entry."""
    name = peppers.names[0]
    known = select(audit_entries.c.id).where(
        audit_entries.c.subject_type == SUBJECT, audit_entries.c.subject_id == name
    )
    if (await connection.execute(known.limit(1))).first() is not None:
        return False
    await audit.write(connection, actor=actor, action="pepper.rotate", subject=(SUBJECT, name))
    return True


async def census(connection: AsyncConnection) -> list[Signed]:
    """How many keys and tokens that still work each pepper has signed."""
    found = []
    for name, (table, live) in _LIVE.items():
        query = (
            select(table.c.pepper, func.count().label("number"), func.max(table.c.last_used_at).label("last"))
            .where(live)
            .group_by(table.c.pepper)
            .order_by(table.c.pepper)
        )
        rows = (await connection.execute(query)).all()
        found += [Signed(name, row.pepper, row.number, row.last) for row in rows]
    return found


async def waiting(
    connection: AsyncConnection, peppers: Peppers, limit: int
) -> list[tuple[str, str, datetime | None]]:
    """Keys and tokens not known to be under the first pepper, the latest used first: table, id, last use."""
    found: list[tuple[str, str, datetime | None]] = []
    for name, (table, live) in _LIVE.items():
        other = func.coalesce(table.c.pepper != peppers.names[0], true())
        query = (
            select(table.c.id, table.c.last_used_at)
            .where(live, other)
            .order_by(table.c.last_used_at.desc().nulls_last(), table.c.id)
            .limit(limit)
        )
        found += [(name, str(row.id), row.last_used_at) for row in await connection.execute(query)]
    return found
