"""The reconciler's work list: unfinished tasks that are due, claimed under a lease.

So every process reads others, and what a killed process had claimed comes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text

from gateway.db.engine import Database
from gateway.db.tables import tasks
from gateway.tasks.registry import TaskRecord, record_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """An account's open tasks: how many, how many of them due; seconds by which the oldest is late, and since the
    longest unread of those due was read."""

    account: str
    open: int
    due: int
    late: float
    unread: float


class DueTasks:
    """Raises GatewayError 503 when Postgres cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, room: Mapping[str, int], lease: float) -> list[TaskRecord]:
        """Due tasks, at most `room` of each account, the longest unread first, for `lease` seconds.

        A task whose hold has ended without it is nobody's business any more: it is put off for good.
        """
        values = {"accounts": list(room), "rooms": list(room.values()), "lease": timedelta(seconds=lease)}
        async with self._database.autocommit() as connection:
            rows = (await connection.execute(_CLAIM, values)).all()
        return [record_of(row) for row in rows if row.hold_open]

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

    async def hurry(self, task_ids: Sequence[str], most: int, every: float) -> None:
        """Makes the longest unread of these running tasks due now, `most` of them: somebody waits for their end.

        None that was read less than `every` seconds ago.
        """
        values = {"ids": list(task_ids), "most": most, "every": timedelta(seconds=every)}
        async with self._database.autocommit() as connection:
            await connection.execute(_HURRY, values)


# What lies further ahead than any of these was written before the clock stepped back, but for tasks put off for good.
# Least recently read first: then no task waits longer than its own interval while there are reads for all of them.
_CLAIM = text("""
WITH due AS (
    SELECT found.id FROM unnest(CAST(:accounts AS text[]), CAST(:rooms AS integer[])) AS wanted(account, room)
    CROSS JOIN LATERAL (
        SELECT t.id FROM tasks t JOIN upstream_keys k ON k.id = t.upstream_key_id
        WHERE t.ended_at IS NULL AND k.account = wanted.account
          AND NOT coalesce(t.next_read_at BETWEEN now() AND now() + interval '15 minutes', false)
          AND t.next_read_at < now() + interval '1 year'
          AND NOT coalesce(t.leased_until BETWEEN now() AND now() + interval '15 minutes', false)
          AND NOT coalesce(t.reading_until BETWEEN now() AND now() + interval '15 minutes', false)
        ORDER BY coalesce(t.read_at, t.created_at)
        LIMIT wanted.room
        FOR UPDATE OF t SKIP LOCKED
    ) found
), known AS (
    SELECT due.id, k.account, team.slug, h.quote, coalesce(h.state IN ('held', 'unknown'), false) AS hold_open
    FROM due
    JOIN tasks t ON t.id = due.id
    JOIN upstream_keys k ON k.id = t.upstream_key_id
    JOIN teams team ON team.id = t.team_id
    LEFT JOIN holds h ON h.id = t.hold_id
)
UPDATE tasks t
SET leased_until = CASE WHEN known.hold_open THEN now() + :lease END,
    next_read_at = CASE WHEN known.hold_open THEN t.next_read_at ELSE now() + interval '1000 years' END
FROM known
WHERE t.id = known.id
RETURNING t.id, t.team_id, t.hold_id, t.upstream_key_id, t.model, t.status, t.body, t.ended_at, t.failed_reads,
          extract(epoch FROM now() - t.created_at) AS age, extract(epoch FROM now() - t.read_at) AS read_ago,
          extract(epoch FROM now() - coalesce(t.seen_at, t.created_at)) AS seen_ago,
          t.reads - coalesce(t.reading_until > now(), false)::integer AS reads,
          known.account, known.slug, known.quote, known.hold_open
""")

_HURRY = text("""
UPDATE tasks SET next_read_at = now() WHERE id IN (
    SELECT t.id FROM tasks t
    WHERE t.id = ANY (:ids) AND t.ended_at IS NULL AND t.next_read_at > now()
      AND t.next_read_at < now() + interval '1 year'
      AND coalesce(t.leased_until <= now(), true) AND coalesce(t.reading_until <= now(), true)
      AND coalesce(t.read_at, t.created_at) <= now() - :every
    ORDER BY coalesce(t.read_at, t.created_at)
    LIMIT :most
    FOR UPDATE SKIP LOCKED
)
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
