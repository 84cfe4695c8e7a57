"""Which task belongs to whom and which upstream key made it: looking tasks up, writing down what reads showed.

Also the reconciler's work list: unfinished tasks are claimed under a lease, so that every process reads others, and
what a killed process had claimed comes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.sql.elements import ColumnElement

from gateway.credits.ledger import conclude
from gateway.credits.terms import Conclusion
from gateway.db.engine import Database
from gateway.db.tables import holds, tasks, upstream_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A recorded task: `body` is its last known state as Pixapi's JSON, `account` the one that can read it.

    `age` and `read_ago` in seconds, by the database's clock; `failed_reads` in a row.
    """

    id: str
    team_id: UUID
    hold_id: UUID
    upstream_key_id: UUID
    account: str
    quote: int
    status: str
    body: bytes
    ended: bool
    model: str = ""
    age: float = 0.0
    read_ago: float | None = None
    failed_reads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a read showed. With a conclusion the task has ended and so does its hold; else it is read again in
    `next_read` seconds."""

    status: str
    body: bytes
    next_read: float
    cost: int | None = None
    conclusion: Conclusion | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """The task's state as it is kept now; `changed` unless it had ended before."""

    body: bytes
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """An account's open tasks: how many, how many of them due; seconds by which the oldest is late, and since the
    longest unread of those due was read."""

    account: str
    open: int
    due: int
    late: float
    unread: float


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

    async def store(self, record: TaskRecord, seen: Seen) -> Stored:
        """Writes down what a read showed. An ended task never changes again: what was stored first stays."""
        values: dict[str, Any] = {
            "status": seen.status,
            "body": seen.body,
            "read_at": func.now(),
            "next_read_at": _in(seen.next_read),
            "leased_until": None,
            "failed_reads": 0,
        }
        if seen.conclusion is not None:
            values |= {"ended_at": func.now(), "credits_cost": seen.cost}
        async with self._database.transaction() as connection:
            changed = await connection.execute(
                tasks.update().where(tasks.c.id == record.id, tasks.c.ended_at.is_(None)).values(values)
            )
            if changed.rowcount == 0:
                kept = await connection.scalar(select(tasks.c.body).where(tasks.c.id == record.id))
                return Stored(kept if isinstance(kept, bytes) else seen.body, False)
            if seen.conclusion is not None:
                await conclude(connection, record.hold_id, seen.conclusion)
        return Stored(seen.body, True)

    async def note_failure(self, record: TaskRecord, next_read: float) -> None:
        """Writes down that a read showed nothing; the last known state stays."""
        async with self._database.autocommit() as connection:
            await connection.execute(
                tasks.update()
                .where(tasks.c.id == record.id, tasks.c.ended_at.is_(None))
                .values(
                    read_at=func.now(),
                    next_read_at=_in(next_read),
                    leased_until=None,
                    failed_reads=tasks.c.failed_reads + 1,
                )
            )

    async def claim(self, room: Mapping[str, int], lease: float) -> list[TaskRecord]:
        """Due tasks, at most `room` of each account, the longest unread first, for `lease` seconds.

        A task whose hold has ended without it is nobody's business any more: it is put off for good.
        """
        values = {"accounts": list(room), "rooms": list(room.values()), "lease": timedelta(seconds=lease)}
        async with self._database.autocommit() as connection:
            rows = (await connection.execute(_CLAIM, values)).all()
        return [_record(row) for row in rows if row.hold_open]

    async def give_back(self, task_ids: Sequence[str]) -> None:
        """Ends the leases of tasks that were claimed and not read."""
        async with self._database.autocommit() as connection:
            await connection.execute(tasks.update().where(tasks.c.id.in_(task_ids)).values(leased_until=None))

    async def backlog(self) -> list[Backlog]:
        """Every account with open tasks."""
        async with self._database.autocommit() as connection:
            rows = (await connection.execute(_BACKLOG)).all()
        return [
            Backlog(
                account=row.account,
                open=row.open,
                due=row.due,
                late=float(row.late or 0),
                unread=float(row.unread or 0),
            )
            for row in rows
        ]


def _in(seconds: float) -> ColumnElement[Any]:
    return func.now() + timedelta(seconds=seconds)


def _ago(column: Any) -> ColumnElement[Any]:
    return func.extract("epoch", func.now() - column)


_TASK = (
    select(
        tasks.c.id,
        tasks.c.team_id,
        tasks.c.hold_id,
        tasks.c.upstream_key_id,
        tasks.c.model,
        tasks.c.status,
        tasks.c.body,
        tasks.c.ended_at,
        tasks.c.failed_reads,
        _ago(tasks.c.created_at).label("age"),
        _ago(tasks.c.read_at).label("read_ago"),
        upstream_keys.c.account,
        holds.c.quote,
    )
    .join_from(tasks, upstream_keys, upstream_keys.c.id == tasks.c.upstream_key_id)
    .join(holds, holds.c.id == tasks.c.hold_id)
)

# Least recently read first: then no task waits longer than its own interval while there are reads for all of them.
_CLAIM = text("""
WITH due AS (
    SELECT found.id FROM unnest(CAST(:accounts AS text[]), CAST(:rooms AS integer[])) AS wanted(account, room)
    CROSS JOIN LATERAL (
        SELECT t.id FROM tasks t JOIN upstream_keys k ON k.id = t.upstream_key_id
        WHERE t.ended_at IS NULL AND t.next_read_at <= now() AND coalesce(t.leased_until <= now(), true)
          AND k.account = wanted.account
        ORDER BY coalesce(t.read_at, t.created_at)
        LIMIT wanted.room
        FOR UPDATE OF t SKIP LOCKED
    ) found
), known AS (
    SELECT due.id, k.account, h.quote, coalesce(h.state IN ('held', 'unknown'), false) AS hold_open
    FROM due
    JOIN tasks t ON t.id = due.id
    JOIN upstream_keys k ON k.id = t.upstream_key_id
    LEFT JOIN holds h ON h.id = t.hold_id
)
UPDATE tasks t
SET leased_until = CASE WHEN known.hold_open THEN now() + :lease END,
    next_read_at = CASE WHEN known.hold_open THEN t.next_read_at ELSE now() + interval '1000 years' END
FROM known
WHERE t.id = known.id
RETURNING t.id, t.team_id, t.hold_id, t.upstream_key_id, t.model, t.status, t.body, t.ended_at, t.failed_reads,
          extract(epoch FROM now() - t.created_at) AS age, extract(epoch FROM now() - t.read_at) AS read_ago,
          known.account, known.quote, known.hold_open
""")

_BACKLOG = text("""
SELECT account, count(*) AS open, count(*) FILTER (WHERE is_due) AS due,
       max(late) FILTER (WHERE is_due) AS late, max(unread) FILTER (WHERE is_due) AS unread
FROM (
    SELECT k.account, extract(epoch FROM now() - t.next_read_at) AS late,
           extract(epoch FROM now() - coalesce(t.read_at, t.created_at)) AS unread,
           t.next_read_at <= now() AND coalesce(t.leased_until <= now(), true) AS is_due
    FROM tasks t JOIN upstream_keys k ON k.id = t.upstream_key_id
    WHERE t.ended_at IS NULL AND t.next_read_at < now() + interval '1 year'
) AS unfinished
GROUP BY account
""")


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
        model=row.model,
        age=float(row.age),
        read_ago=None if row.read_ago is None else float(row.read_ago),
        failed_reads=row.failed_reads,
    )
