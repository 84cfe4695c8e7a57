"""Whole months of holds, entries and sends are taken out of the database; what they moved is carried forward.

A month is frozen first: a trigger on its partitions refuses every change, so what is exported, what is summed and what
is dropped are the same. Then one transaction writes the sums (a `carry` entry for each counter, `carried_usage` for
each day), deletes what belongs to the month elsewhere, notes the month in `pruned_months` and detaches its partitions.
It commits as a whole or not at all, so the proof holds at any moment; what a stopped run leaves is a frozen month, or
detached tables, and the next run goes on from there.

A few holds of a month's end were placed after it by the database's clock. Their usage is that of days that still
change, so they stay, in the default partitions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from random import uniform
from typing import Any
from uuid import UUID

from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.credits import prune_queries as queries
from gateway.credits.amount import to_text
from gateway.db import audit
from gateway.db.engine import LOCK_NOT_AVAILABLE, Database, LockedError, allow
from gateway.db.tables import pruned_months
from gateway.ids import lowest_uuid7

log = logging.getLogger("gateway.pruning")

STATEMENT_SECONDS = 3600
LOCK_MILLISECONDS = 50  # far below `database.lock_timeout`: whoever comes after a waiting lock waits too
LOCK_TRIES = 240
PAUSE_SECONDS = 0.5
MOST_KEPT = 10_000
SETTLED_AFTER = timedelta(hours=1)  # far beyond what clocks differ by: a write into a frozen month is refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows of a month: idempotency `records` among them, and `settled` micro-credits."""

    holds: int
    entries: int
    attempts: int
    tasks: int
    records: int
    settled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A month that may go, what is in it, and what is in the way: a sentence each."""

    month: date
    counts: Counts
    obstacles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export says it has, and the digest of its manifest."""

    counts: Counts
    manifest_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A month that is gone: what was in it, how many holds of its end were `kept`, how many sums were carried on."""

    month: date
    counts: Counts
    kept: int
    carried: int


class MonthNotPrunedError(errors.GatewayError):
    """409: something is in the way; nothing of the month was changed."""

    def __init__(self, message: str) -> None:
        super().__init__(409, "conflict_error", "month_not_pruned", message)


async def survey(database: Database, before: date) -> list[Planned]:
    """The months that ended by `before` and have partitions, oldest first. Raises GatewayError 503."""
    async with database.transaction() as connection:
        await allow(connection, STATEMENT_SECONDS)
        rows = (await connection.execute(queries.MONTHS, {"before": before.replace(day=1)})).all()
        found = []
        for row in rows:
            complete = row.tables == len(queries.PARENTS)
            counts = await _counts(connection, row.month) if complete else _NOTHING
            in_the_way = await _obstacles(connection, row.month)
            if not complete:
                in_the_way = (*in_the_way, "one of its partitions is missing; run pixapi-gateway db upgrade")
            found.append(Planned(month=row.month, counts=counts, obstacles=in_the_way))
    return found


async def freeze(database: Database, month: date) -> None:
    """From now on nothing in the month's partitions changes; again is a no-op.

    Raises MonthNotPrunedError when something is in the way, LockedError when a table was in use in many tries.
    """
    for _ in range(LOCK_TRIES):
        try:
            async with database.transaction() as connection:
                await allow(connection, STATEMENT_SECONDS)
                await connection.execute(_LOCK_TIMEOUT)
                for parent in queries.PARENTS:
                    table = f"{parent}_{queries.suffix(month)}"
                    if not await connection.scalar(queries.is_frozen(table)):
                        await connection.execute(queries.freeze(table))
                # After the locks were had: what was written until then is seen, and no more comes.
                if in_the_way := await _obstacles(connection, month):
                    raise MonthNotPrunedError(_refusal(month, in_the_way))
            return
        except LockedError:
            await asyncio.sleep(_pause())
    raise LockedError


@asynccontextmanager
async def only_run(database: Database) -> AsyncIterator[None]:
    """Nobody else prunes until the block ends: two exports into one folder would overwrite each other."""
    async with database.transaction() as connection:
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        if not await connection.scalar(queries.ONLY_RUN):
            raise MonthNotPrunedError("Another run is pruning; wait until it has ended.")
        yield


async def take_out(
    database: Database, actor: str, month: date, exported: Exported | None, step: Callable[[str], None]
) -> Pruned:
    """Carries the frozen month's sums forward and detaches its partitions, in one transaction; audited.

    `exported` None: nothing was exported, and nothing is compared. `step` is told before each part. Raises
    MonthNotPrunedError when the month is not what was exported, is already gone, or another run is at it;
    LockedError when the tables were in use in many tries. Either way nothing has changed.
    """
    async with database.transaction() as connection:
        await allow(connection, STATEMENT_SECONDS)
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await connection.execute(text("SET LOCAL jit = off"))
        if not await connection.scalar(queries.ALONE):
            raise MonthNotPrunedError("Another run is pruning; wait until it has ended.")
        if await connection.scalar(queries.PRUNED, {"month": month}):
            raise MonthNotPrunedError(f"{month:%Y-%m} is already pruned.")
        step("comparing")
        counts = await _counts(connection, month)
        if exported is not None:
            _compare(month, exported.counts, counts)
        kept = await _late(connection, month)
        values = _span(month) | {"month": month, "kept": kept, "actor": actor}
        step("carrying sums forward")
        reason = {"reason": f"the entries of {month:%Y-%m}, pruned"}
        carried = (await connection.execute(queries.carry(month), values | reason)).rowcount
        await connection.execute(queries.carry_usage(month), values)
        step("deleting tasks")
        await connection.execute(queries.DROP_TASKS, values)
        await connection.execute(queries.DROP_RECORDS, values)
        await _note(connection, actor, month, counts, len(kept), exported)
        step("detaching")
        await _lock(connection)
        for parent in queries.PARENTS:
            await connection.execute(queries.detach(parent, month))
            if kept:
                await connection.execute(queries.keep(parent, month), values)
        step("committing")
    log.info("month pruned", extra={"detail": f"{month:%Y-%m}: {counts.holds} holds"})
    return Pruned(month=month, counts=counts, kept=len(kept), carried=carried)


async def drop_left_over(database: Database) -> list[str]:
    """Drops the detached tables of pruned months, each in a transaction of its own; their names."""
    async with database.autocommit() as connection:
        names = list((await connection.execute(queries.LEFT_OVER)).scalars())
    for name in names:
        async with database.transaction() as connection:
            await allow(connection, STATEMENT_SECONDS)
            await connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
    return names


async def pruned_until(connection: AsyncConnection) -> date | None:
    """The first day after the last pruned month (UTC); None when none was pruned."""
    last: date | None = await connection.scalar(
        pruned_months.select()
        .with_only_columns(pruned_months.c.month)
        .order_by(pruned_months.c.month.desc())
        .limit(1)
    )
    return None if last is None else next_month(last)


def next_month(month: date) -> date:
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)


async def _obstacles(connection: AsyncConnection, month: date) -> tuple[str, ...]:
    values, found = _span(month), []
    now: datetime = (await connection.execute(queries.NOW)).scalar_one()
    if values["end"] > now:
        found.append("it is not over")
    elif values["end"] > now - SETTLED_AFTER:
        found.append(
            "it ended less than an hour ago, and a gateway whose clock is behind may still write into it"
        )
    if number := await connection.scalar(queries.OPEN_HOLDS, values):
        found.append(f"{number} holds of it or of earlier months are held or unknown; see holds list")
    if ends := await connection.scalar(queries.RUNNING_PERIODS, values):
        found.append(f"the period of a quota it belongs to runs until {ends:%Y-%m-%dT%H:%MZ}")
    if days := await connection.scalar(queries.OPEN_DAYS, values):
        found.append(f"the usage of {days} of its days is not summed yet; a running gateway does it")
    if expires := await connection.scalar(queries.KEPT_ANSWERS, values):
        found.append(f"answers to its calls are kept for their repeats until {expires:%Y-%m-%dT%H:%MZ}")
    if rows := await connection.scalar(queries.STRAY, values):
        found.append(f"{rows} rows of it lie in the default partitions; run pixapi-gateway db upgrade")
    return tuple(found)


def _compare(month: date, exported: Counts, found: Counts) -> None:
    """Records are left out: gateways delete what has expired."""
    before, now = asdict(exported), asdict(found)
    if changed := [name for name in now if name != "records" and now[name] != before[name]]:
        said = ", ".join(f"{before[name]} {name} were exported and {now[name]} are there" for name in changed)
        raise MonthNotPrunedError(f"{month:%Y-%m}: {said}. Nothing was changed; run the command again.")


def _refusal(month: date, in_the_way: tuple[str, ...]) -> str:
    return f"{month:%Y-%m} cannot be pruned: {'; '.join(in_the_way)}."


def _span(month: date) -> dict[str, Any]:
    """The month's instants, and the ids between which its rows lie, the second of each excluded."""
    start, end = (datetime.combine(day, time(), UTC) for day in (month, next_month(month)))
    return {"start": start, "end": end, "low": lowest_uuid7(start), "high": lowest_uuid7(end)}


async def _counts(connection: AsyncConnection, month: date) -> Counts:
    row = (await connection.execute(queries.counts(month), _span(month))).one()
    return Counts(**row._mapping)


async def _late(connection: AsyncConnection, month: date) -> list[UUID]:
    """Holds that were placed after the month by the database's clock."""
    values = _span(month) | {"most": MOST_KEPT + 1}
    found = list(await connection.scalar(queries.late(month), values) or ())
    if len(found) > MOST_KEPT:
        raise MonthNotPrunedError(
            f"{month:%Y-%m}: more than {MOST_KEPT} of its holds were placed after it; a gateway's clock was wrong."
        )
    return found


async def _note(
    connection: AsyncConnection, actor: str, month: date, counts: Counts, kept: int, exported: Exported | None
) -> None:
    digest = None if exported is None else exported.manifest_sha256
    note = pruned_months.insert().values(
        month=month, actor=actor, kept=kept, manifest_sha256=digest, **asdict(counts)
    )
    await connection.execute(note)
    detail = asdict(counts) | {"settled": to_text(counts.settled), "kept": kept, "manifest_sha256": digest}
    subject = ("month", f"{month:%Y-%m}")
    await audit.write(connection, actor=actor, action="ledger.prune", subject=subject, detail=detail)


async def _lock(connection: AsyncConnection) -> None:
    """Nobody uses the three tables until the transaction ends, which is soon: a lock on all of their partitions.

    Each try is given up shortly, so that paid calls that came after it go on.
    """
    await connection.execute(_LOCK_TIMEOUT)
    for left in reversed(range(LOCK_TRIES)):
        try:
            async with connection.begin_nested():
                await connection.execute(queries.LOCK_PARENTS)
            return
        except exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE or not left:
                raise
            await asyncio.sleep(_pause())


def _pause() -> float:
    return PAUSE_SECONDS * uniform(0.5, 1)  # noqa: S311 - so that two do not meet again


_LOCK_TIMEOUT = text(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'")
_NOTHING = Counts(holds=0, entries=0, attempts=0, tasks=0, records=0, settled=0)
