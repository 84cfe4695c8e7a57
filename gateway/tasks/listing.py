"""Lists of tasks, as admins and the owning team see them: what the gateway knows, not Pixapi's own answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.db.paging import Keyset, Page, PageOf
from gateway.db.tables import tasks, teams

_ORDER = Keyset("tasks", tasks.c.created_at, tasks.c.id)
_COLUMNS = [
    tasks.c.id,
    tasks.c.team_id,
    tasks.c.key_id,
    tasks.c.hold_id,
    tasks.c.upstream_key_id,
    tasks.c.model,
    tasks.c.operation,
    tasks.c.status,
    tasks.c.credits_cost,
    tasks.c.failed_reads,
    tasks.c.created_at,
    tasks.c.read_at,
    tasks.c.ended_at,
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTask:
    """A task: whose, with which upstream key, and where it stands. `credits_cost` in micro-credits, once known."""

    id: str
    team_id: UUID
    team: str  # its slug
    key_id: str
    hold_id: UUID
    upstream_key_id: UUID
    model: str
    operation: str
    status: str
    credits_cost: int | None
    failed_reads: int
    created_at: datetime
    read_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks; None does not narrow."""

    team_id: UUID | None = None
    status: str | None = None
    ended: bool | None = None


async def page(connection: AsyncConnection, narrow: TaskFilter, which: PageOf) -> Page[ListedTask]:
    """One page of the tasks the filter lets through."""
    query = _query()
    if narrow.team_id is not None:
        query = query.where(tasks.c.team_id == narrow.team_id)
    if narrow.status is not None:
        query = query.where(tasks.c.status == narrow.status)
    if narrow.ended is not None:
        query = query.where(tasks.c.ended_at.is_not(None) if narrow.ended else tasks.c.ended_at.is_(None))
    return await _ORDER.read(connection, query, which, _task)


async def find(connection: AsyncConnection, task_id: str, team_id: UUID | None = None) -> ListedTask:
    """The task with this id, of this team if one is given; 404 otherwise."""
    query = _query().where(tasks.c.id == task_id)
    if team_id is not None:
        query = query.where(tasks.c.team_id == team_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise errors.not_found("There is no task with this id.", "task_not_found")
    return _task(row)


async def by_ids(connection: AsyncConnection, task_ids: Collection[str]) -> dict[str, ListedTask]:
    """Those of these tasks that there are."""
    rows = await connection.execute(_query().where(tasks.c.id.in_(task_ids)))
    return {row.id: _task(row) for row in rows}


async def running_by_upstream_key(connection: AsyncConnection) -> dict[UUID, int]:
    """How many tasks that have not ended each upstream key has submitted."""
    query = (
        select(tasks.c.upstream_key_id, func.count().label("number"))
        .where(tasks.c.ended_at.is_(None))
        .group_by(tasks.c.upstream_key_id)
    )
    return {row.upstream_key_id: row.number for row in await connection.execute(query)}


def _query() -> Select[Any]:
    return select(*_COLUMNS, teams.c.slug.label("team")).join(teams, teams.c.id == tasks.c.team_id)


def _task(row: Row[Any]) -> ListedTask:
    return ListedTask(**row._mapping)
