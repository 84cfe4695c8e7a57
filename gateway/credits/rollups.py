"""UTC days that are over, summed once: what reports read in place of the many rows of those days.

A day is closed when its rows can only be changed by transactions that mark it as late; a trigger does that, in the
transaction of the change. A day that bears a mark is read from its own rows until it has been summed again. So whoever
reads sums, marks and rows in one snapshot reads what the rows alone would say.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    DateTime,
    Subquery,
    cast,
    exists,
    func,
    literal,
    select,
    text,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.credits import rollup_queries as queries
from gateway.db.engine import Database, allow
from gateway.db.tables import usage_days_closed, usage_days_late
from gateway.ids import lowest_uuid7

log = logging.getLogger("gateway.rollups")

ROLL_SECONDS = 180.0
CLOSES_AFTER = timedelta(hours=1)  # most calls of a day have ended by then, and mark nothing
MOST_DAYS = 31  # of one pass
STATEMENT_SECONDS = 60
# A hold's id is made by its process's clock, its day by Postgres's.
CLOCKS_APART = timedelta(hours=1)
SPANS = (1, 7, 30)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    """An instant, the transaction that began at it, and the oldest one that had not ended."""

    at: datetime
    own: int
    oldest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Through:
    """Settled calls that went through an upstream key, and their micro-credits."""

    requests: int = 0
    credits: int = 0


class Rollups:
    """Runs in every process; while one is at it the others pass over."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: _Moment | None = None
        self._ended: datetime | None = None  # whatever wrote before this instant has ended

    async def once(self) -> int:
        """Closes days that are over, and sums late ones again, oldest first; answers how many of both.

        The first pass closes nothing: it notes which transactions there are, and a later one finds them ended.
        Raises GatewayError 503 when Postgres cannot be asked.
        """
        async with self._database.autocommit() as connection:
            now = _Moment(**(await connection.execute(queries.MOMENT)).one()._mapping)
        self._note(now)
        days = await self._due(self._over(now.at))
        summed = 0
        for day in days:
            if not await self._sum(day):
                break
            summed += 1
        if summed:
            log.info("days of usage summed", extra={"detail": f"{summed}, to {days[summed - 1]}"})
        return summed

    def _note(self, now: _Moment) -> None:
        """A writer that began later than a noted moment sees a clock beyond it, and so marks what is over by then."""
        noted = self._noted
        if noted is not None and now.oldest >= noted.own:
            self._ended, noted = noted.at, None
        if noted is None or now.own < noted.own:  # less: another Postgres, restored from a backup
            self._noted = now

    def _over(self, now: datetime) -> datetime:
        """Days that ended by this instant may be closed."""
        return (
            datetime.min.replace(tzinfo=UTC) if self._ended is None else min(self._ended, now - CLOSES_AFTER)
        )

    async def _due(self, over: datetime) -> Sequence[date]:
        """The days to sum now; none when another process is at it."""
        async with self._alone() as connection:
            if connection is None:
                return ()
            found = await connection.execute(queries.DUE, {"over": over, "most": MOST_DAYS})
            return found.scalars().all()

    async def _sum(self, day: date) -> bool:
        """Sums a day in a transaction of its own; False when another process is at it."""
        start = datetime.combine(day, time(), UTC)
        lowest, highest = _ids(day)
        values = {"day": day, "start": start, "end": start + _DAY, "lowest": lowest, "highest": highest}
        async with self._alone() as connection:
            if connection is None:
                return False
            await connection.execute(queries.SUM, values)
        return True

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[AsyncConnection | None]:
        """A transaction in which nobody else sums days; None when another process does."""
        async with self._database.transaction() as connection:
            await allow(connection, STATEMENT_SECONDS)
            await connection.execute(text("SET LOCAL jit = off"))  # compiling takes longer than these queries
            # A statement of its own: what follows has a snapshot that shows what the one before has written.
            yield connection if await connection.scalar(queries.ALONE) else None


def clean_days(first: date, end: date) -> CTE:
    """The UTC days from `first` to before `end` that `usage_days` and `upstream_key_days` tell exactly, in the
    snapshot of the statement it is part of."""
    late = exists().where(usage_days_late.c.utc_day == usage_days_closed.c.utc_day)
    return (
        select(usage_days_closed.c.utc_day)
        .where(usage_days_closed.c.utc_day >= first, usage_days_closed.c.utc_day < end, ~late)
        .cte("clean")
    )


def gaps(clean: CTE, start: datetime, end: datetime) -> Subquery:
    """What clean days leave of the time between two instants that include them, as instants `start` and `end`."""
    day = clean.c.utc_day
    before = func.lag(day).over(order_by=day)
    opens = [func.coalesce(_midnight_of(after + 1), literal(start)) for after in (before, func.max(day))]
    found = union_all(
        select(opens[0].label("start"), _midnight_of(day).label("end")),
        select(opens[1], literal(end)).select_from(clean),
    ).subquery()
    return select(found).where(found.c.start < found.c.end).subquery()


async def upstream_credits(
    connection: AsyncConnection, today: date, spans: Sequence[int] = SPANS
) -> dict[UUID, tuple[Through, ...]]:
    """What each upstream key that was used has served in the last so many UTC days, `today` being the last of them.

    By default: today, 7 days and 30 days. A call counts on the day its hold was placed, once it has settled.
    """
    days = [today - timedelta(days=before) for before in range(max(spans))]
    ids = [_ids(day) for day in days]
    values = {"days": days, "lowest": [low for low, _ in ids], "highest": [high for _, high in ids]}
    found: dict[UUID, list[Through]] = {}
    for row in await connection.execute(queries.THROUGH, values):
        sums = found.setdefault(row.upstream_key_id, [Through()] * len(spans))
        for place, span in enumerate(spans):
            if row.utc_day > today - timedelta(days=span):
                before = sums[place]
                sums[place] = Through(
                    requests=before.requests + row.requests, credits=before.credits + int(row.credits)
                )
    return {key: tuple(sums) for key, sums in found.items()}


async def mark_differing(connection: AsyncConnection, team_id: UUID) -> int:
    """Marks the days whose sums are not those of the team's rows, so that they are summed again; how many."""
    return (await connection.execute(queries.MARK_DIFFERING, {"team": team_id})).rowcount


def _ids(day: date) -> tuple[UUID, UUID]:
    """Between which ids, the second excluded, the holds of a UTC day lie."""
    start = datetime.combine(day, time(), UTC)
    return lowest_uuid7(start - CLOCKS_APART), lowest_uuid7(start + _DAY + CLOCKS_APART)


def _midnight_of(day: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.timezone("UTC", cast(day, DateTime()))
