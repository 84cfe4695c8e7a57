"""Which task belongs to whom and which upstream key made it: looking tasks up, writing down what reads showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Integer, cast, func, select, text
from sqlalchemy.sql.elements import ColumnElement

from gateway.credits.ledger import conclude
from gateway.credits.terms import Conclusion
from gateway.db.engine import Database
from gateway.db.tables import holds, tasks, teams, upstream_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A recorded task: `body` is its last known state as Pixapi's JSON, `account` the one that can read it.

    `age`, `read_ago` and `seen_ago` (since `body` was Pixapi's word) in seconds, by the database's clock;
    `failed_reads` in a row; `reads` numbers the read that showed `body`, or a later one that showed nothing newer.
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
    seen_ago: float = 0.0
    reads: int = 0
    team: str = ""  # its slug, for metrics

    def read_since(self, before: TaskRecord) -> bool:
        """Whether a read of the task has ended since `before` was found."""
        if self.read_ago is None or before.read_ago is None:
            return self.read_ago is not before.read_ago
        return self.age - self.read_ago > before.age - before.read_ago + 0.001


@dataclass(frozen=True, slots=True)
class ReadRules:
    """How often Pixapi may be asked, over all processes: a task at most every `every` seconds, a key `slots` times in
    `span` seconds. Who is told that another process reads a task need not wait longer than `busy` for it."""

    every: float = 2.0
    busy: float = 5.0
    slots: int = 5
    span: float = 1.0


@dataclass(frozen=True, slots=True)
class Begun:
    """Whether Pixapi may be asked: `go`, or why not (busy, recent, ended, full); `number` is that of the read."""

    verdict: Literal["go", "busy", "recent", "ended", "full"]
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a read showed. With a conclusion the task has ended and so does its hold; else it is read again in
    `next_read` seconds."""

    status: str
    body: bytes
    next_read: float
    number: int = 0
    cost: int | None = None
    conclusion: Conclusion | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """The task's state as it is kept now; `changed` unless it had ended, or was read again, before.

    `hold_ended` when its hold ended with it: not when an admin, or time, had ended that before.
    """

    status: str
    body: bytes
    ended: bool
    changed: bool
    hold_ended: bool = False


class Registry:
    """Raises GatewayError 503 when Postgres cannot be asked."""

    def __init__(self, database: Database, rules: ReadRules | None = None) -> None:
        self._database = database
        self.rules = rules or ReadRules()

    async def find(self, team_id: UUID, task_id: str) -> TaskRecord | None:
        """The team's task, None when there is none or it is another team's."""
        async with self._database.autocommit() as connection:
            row = (
                await connection.execute(_TASK.where(tasks.c.id == task_id, tasks.c.team_id == team_id))
            ).first()
        return None if row is None else record_of(row)

    async def begin_read(self, task_id: str, key_id: UUID, *, again: bool = False) -> Begun:
        """Asks to read a task from Pixapi through this key; `again` also one that has ended."""
        rules = self.rules
        values = {
            "task": task_id,
            "key": key_id,
            "again": again,
            "every": timedelta(seconds=rules.every),
            "busy": timedelta(seconds=rules.busy),
            "slots": rules.slots,
            "span": timedelta(seconds=rules.span),
        }
        async with self._database.autocommit() as connection:
            row = (await connection.execute(_BEGIN_READ, values)).one()
        return Begun(row.verdict, row.number or 0)

    async def store(self, record: TaskRecord, seen: Seen) -> Stored:
        """Writes down what a read showed. An ended task never changes again: what was stored first stays.

        So does what a newer read has shown of a running one.
        """
        values: dict[str, Any] = {
            "status": seen.status,
            "body": seen.body,
            "seen_at": func.now(),
            "next_read_at": _in(seen.next_read),
            "leased_until": None,
            "failed_reads": 0,
        } | _READ_ENDS
        unchanged = [tasks.c.id == record.id, tasks.c.ended_at.is_(None)]
        if seen.conclusion is not None:
            values |= {"ended_at": func.now(), "credits_cost": seen.cost}
        else:
            unchanged.append(tasks.c.reads == seen.number)
        async with self._database.transaction() as connection:
            changed = await connection.execute(tasks.update().where(*unchanged).values(values))
            if changed.rowcount == 0:
                kept = select(tasks.c.status, tasks.c.body, tasks.c.ended_at).where(tasks.c.id == record.id)
                row = (await connection.execute(kept)).one()
                return Stored(row.status, row.body, row.ended_at is not None, False)
            hold_ended = False
            if seen.conclusion is not None:
                hold_ended = (await conclude(connection, record.hold_id, seen.conclusion)).changed
        return Stored(seen.status, seen.body, seen.conclusion is not None, True, hold_ended)

    async def renew(self, record: TaskRecord, body: bytes | None) -> None:
        """Writes down what an ended task looks like today, its links for instance; None when that could not be read.

        No credit moves.
        """
        values = {} if body is None else {"body": body, "seen_at": func.now()}
        async with self._database.autocommit() as connection:
            await connection.execute(
                tasks.update()
                .where(tasks.c.id == record.id, tasks.c.ended_at.is_not(None))
                .values(**values, **_READ_ENDS)
            )

    async def changed(self, seen: Mapping[str, str]) -> list[TaskRecord]:
        """Those of these tasks whose status is not the one given."""
        values = {"ids": list(seen), "statuses": list(seen.values())}
        async with self._database.autocommit() as connection:
            ids = (await connection.execute(_CHANGED, values)).scalars().all()
            if not ids:
                return []
            rows = (await connection.execute(_TASK.where(tasks.c.id.in_(ids)))).all()
        return [record_of(row) for row in rows]

    async def note_failure(self, record: TaskRecord, next_read: float) -> None:
        """Writes down that a read showed nothing; the last known state stays."""
        async with self._database.autocommit() as connection:
            await connection.execute(
                tasks.update()
                .where(tasks.c.id == record.id, tasks.c.ended_at.is_(None))
                .values(
                    next_read_at=_in(next_read),
                    leased_until=None,
                    failed_reads=tasks.c.failed_reads + 1,
                    **_READ_ENDS,
                )
            )


def _in(seconds: float) -> ColumnElement[Any]:
    return func.now() + timedelta(seconds=seconds)


def _ago(column: Any) -> ColumnElement[Any]:
    return func.extract("epoch", func.now() - column)


# While a task is being read, its state is that of the read before.
_READS = tasks.c.reads - cast(func.coalesce(tasks.c.reading_until > func.now(), False), Integer)
_READ_ENDS: dict[str, Any] = {"read_at": func.clock_timestamp(), "reading_until": None}

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
        _ago(func.coalesce(tasks.c.seen_at, tasks.c.ended_at, tasks.c.created_at)).label("seen_ago"),
        _READS.label("reads"),
        upstream_keys.c.account,
        holds.c.quote,
        teams.c.slug,
    )
    .join_from(tasks, upstream_keys, upstream_keys.c.id == tasks.c.upstream_key_id)
    .join(holds, holds.c.id == tasks.c.hold_id)
    .join(teams, teams.c.id == tasks.c.team_id)
)

_BEGIN_READ = text(
    "SELECT verdict, number FROM gateway_begin_read(:task, :key, :again, :every, :busy, :slots, :span)"
)

_CHANGED = text("""
SELECT t.id FROM tasks t
JOIN unnest(CAST(:ids AS text[]), CAST(:statuses AS text[])) AS seen(id, status) ON seen.id = t.id
WHERE t.status <> seen.status
""")


def record_of(row: Any) -> TaskRecord:
    """The record in a row with the columns of `_TASK`."""
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
        seen_ago=float(row.seen_ago),
        reads=row.reads,
        team=row.slug,
    )
