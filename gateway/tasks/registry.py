"""Which task belongs to whom and which upstream key made it: the reads and the one write after a poll."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from gateway.credits.ledger import Conclusion, conclude
from gateway.db.engine import Database
from gateway.db.tables import holds, tasks, upstream_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A recorded task: `body` is its last known state as Pixapi's JSON, `account` the one that can read it."""

    id: str
    team_id: UUID
    hold_id: UUID
    upstream_key_id: UUID
    account: str
    quote: int
    status: str
    body: bytes
    ended: bool


class Registry:
    """Raises GatewayError 503 when Postgres cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, team_id: UUID, task_id: str) -> TaskRecord | None:
        """The team's task, None when there is none or it is another team's."""
        async with self._database.autocommit() as connection:
            row = (
                await connection.execute(_TASK.where(tasks.c.id == task_id, tasks.c.team_id == team_id))
            ).first()
        return None if row is None else _record(row)

    async def store(
        self, record: TaskRecord, status: str, body: bytes, cost: int | None, conclusion: Conclusion | None
    ) -> bytes:
        """Writes down what a read showed; with a conclusion the task has ended and so does its hold.

        An ended task never changes again: the state that was stored first is returned and stays.
        """
        values: dict[str, Any] = {"status": status, "body": body, "read_at": func.now()}
        if conclusion is not None:
            values |= {"ended_at": func.now(), "credits_cost": cost}
        async with self._database.transaction() as connection:
            changed = await connection.execute(
                tasks.update().where(tasks.c.id == record.id, tasks.c.ended_at.is_(None)).values(values)
            )
            if changed.rowcount == 0:
                kept = await connection.scalar(select(tasks.c.body).where(tasks.c.id == record.id))
                return kept if isinstance(kept, bytes) else body
            if conclusion is not None:
                await conclude(connection, record.hold_id, conclusion)
        return body


_TASK = (
    select(
        tasks.c.id,
        tasks.c.team_id,
        tasks.c.hold_id,
        tasks.c.upstream_key_id,
        tasks.c.status,
        tasks.c.body,
        tasks.c.ended_at,
        upstream_keys.c.account,
        holds.c.quote,
    )
    .join_from(tasks, upstream_keys, upstream_keys.c.id == tasks.c.upstream_key_id)
    .join(holds, holds.c.id == tasks.c.hold_id)
)


def _record(row: Any) -> TaskRecord:
    return TaskRecord(
        id=row.id,
        team_id=row.team_id,
        hold_id=row.hold_id,
        upstream_key_id=row.upstream_key_id,
        account=row.account,
        quote=row.quote,
        status=row.status,
        body=row.body,
        ended=row.ended_at is not None,
    )
