"""Quotas: how many credits a team, or one key of it, may spend in a period. What is spent is the ledger's.

Whatever changes a quota does so while no call of the team is placed or ended.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Row, ScalarSelect, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.credits import counters
from gateway.credits.amount import to_text
from gateway.db import audit
from gateway.db.tables import NOW, quotas, team_keys, teams
from gateway.ids import uuid7

Period = Literal["day", "week", "month", "total"]
PERIODS: tuple[Period, ...] = ("day", "week", "month", "total")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose quota: a team's, or with `key_id` that of one of its keys.

    A key and those it was rotated into have theirs together: any of them stands for all.
    """

    team_id: UUID
    key_id: str | None = None

    @property
    def subject(self) -> tuple[str, str]:
        """Type and id as audit entries name them."""
        return ("team", str(self.team_id)) if self.key_id is None else ("key", self.key_id)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `micro` micro-credits; `enforce` False only counts what it would have refused."""

    micro: int
    enforce: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A quota as stored; its id stays when its limit changes, so that what was counted stays too.

    `key_id` is the first of the keys it is for.
    """

    id: UUID
    team_id: UUID
    key_id: str | None
    period: Period
    limit_micro: int
    enforce: bool
    updated_at: datetime
    created_at: datetime


async def put(connection: AsyncConnection, actor: str, owner: Owner, period: Period, limit: Limit) -> Quota:
    """The owner's quota for this period, made or changed; 409 when it was the team's last enforced one.

    A new one has counted what its period has spent and holds, before this transaction ends.
    """
    await counters.lock(connection, owner.team_id)
    before = await _find(connection, owner, period)
    if before is not None and (before.limit_micro, before.enforce) == (limit.micro, limit.enforce):
        return before
    values = {"limit_micro": limit.micro, "enforce": limit.enforce}
    if before is None:
        first = None if owner.key_id is None else _first_of_line(owner.key_id)
        new = {"id": uuid7(), "team_id": owner.team_id, "key_id": first, "period": period}
        statement: Any = quotas.insert().values(**new, **values)
    else:
        statement = quotas.update().where(quotas.c.id == before.id).values(**values, updated_at=NOW)
    after = _quota((await connection.execute(statement.returning(*quotas.c))).one())
    more = {"from": _described(before)} if before else {}
    await _record(connection, actor, "quota.set", owner, _described(after) | {"period": period} | more)
    if before is None:
        await counters.open_missing(connection, owner.team_id)
    if owner.key_id is None:
        await require_limited(connection, owner.team_id)
    return after


async def find(connection: AsyncConnection, owner: Owner, period: Period) -> Quota:
    """The owner's quota for this period; 404 when it has none."""
    quota = await _find(connection, owner, period)
    if quota is None:
        raise _unknown(owner, period)
    return quota


async def of(connection: AsyncConnection, owner: Owner) -> list[Quota]:
    """The owner's quotas, shortest period first."""
    query = select(quotas).where(*_owned_by(owner)).order_by(_by_period())
    return [_quota(row) for row in await connection.execute(query)]


async def of_teams(connection: AsyncConnection, team_ids: Collection[UUID]) -> dict[UUID, list[Quota]]:
    """The quotas of these whole teams, shortest period first; those without any are left out."""
    query = select(quotas).where(quotas.c.team_id.in_(team_ids), quotas.c.key_id.is_(None))
    found: dict[UUID, list[Quota]] = {}
    for row in await connection.execute(query.order_by(_by_period())):
        found.setdefault(row.team_id, []).append(_quota(row))
    return found


async def remove(connection: AsyncConnection, actor: str, owner: Owner, period: Period) -> Quota:
    """The quota as it was before it was removed; 404, or 409 when it was the team's last enforced one.

    Its counters go with it: entries take out of them what they still had, and open holds come off them.
    """
    await counters.lock(connection, owner.team_id)
    quota = await find(connection, owner, period)
    await counters.close(connection, owner.team_id, quota.id, "the quota was removed")
    await connection.execute(quotas.delete().where(quotas.c.id == quota.id))
    await _record(connection, actor, "quota.remove", owner, _described(quota) | {"period": period})
    if owner.key_id is None:
        await require_limited(connection, owner.team_id)
    return quota


async def require_limited(connection: AsyncConnection, team_id: UUID) -> None:
    """409 when the team, as this transaction leaves it, has no enforced quota and is not unlimited."""
    enforced = exists().where(
        quotas.c.team_id == team_id, quotas.c.key_id.is_(None), quotas.c.enforce.is_(True)
    )
    query = select(teams.c.unlimited | enforced).where(teams.c.id == team_id)
    if not (await connection.execute(query)).scalar_one():
        raise errors.conflict(
            "The team would be left without an enforced quota. Set another one first, or set unlimited: true "
            "on the team.",
            "last_enforced_quota",
        )


async def _find(connection: AsyncConnection, owner: Owner, period: Period) -> Quota | None:
    query = select(quotas).where(*_owned_by(owner), quotas.c.period == period)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _quota(row)


async def _record(
    connection: AsyncConnection, actor: str, action: str, owner: Owner, detail: dict[str, Any]
) -> None:
    await audit.write(
        connection, actor=actor, action=action, subject=owner.subject, team_id=owner.team_id, detail=detail
    )


def _owned_by(owner: Owner) -> tuple[ColumnElement[bool], ...]:
    if owner.key_id is None:
        return quotas.c.team_id == owner.team_id, quotas.c.key_id.is_(None)
    return (quotas.c.key_id == _first_of_line(owner.key_id),)


def _first_of_line(key_id: str) -> ScalarSelect[str]:
    return select(team_keys.c.quota_key_id).where(team_keys.c.id == key_id).scalar_subquery()


def _by_period() -> ColumnElement[Any]:
    return func.array_position(list(PERIODS), quotas.c.period)


def _described(quota: Quota) -> dict[str, object]:
    return {"limit": to_text(quota.limit_micro), "enforce": quota.enforce}


def _unknown(owner: Owner, period: Period) -> errors.GatewayError:
    return errors.not_found(f"This {owner.subject[0]} has no {period} quota.", "quota_not_found")


def _quota(row: Row[Any]) -> Quota:
    return Quota(**row._mapping)
