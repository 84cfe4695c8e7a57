"""The life of a hold: placed before a paid call, ended once after it.

Verbs are one transaction each and compare-and-set on the hold's state, so a poll, another process and a repeated
verb conclude a hold once: the first wins, the others change nothing. No connection is held between verbs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from random import uniform
from time import monotonic, perf_counter
from typing import Any, TypeVar, cast
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.credits.amount import to_text
from gateway.credits.batch import Batcher
from gateway.credits.terms import (
    Conclusion,
    Ended,
    Item,
    NewTask,
    Order,
    Placed,
    SentVia,
    bind_item,
    end_item,
    place_item,
)
from gateway.db.engine import Database, promptly
from gateway.errors import GatewayError
from gateway.ids import uuid7
from gateway.telemetry import Metrics
from gateway.waiting import within

log = logging.getLogger("gateway.ledger")

WAIT_SECONDS = 5.0
REPEAT_SECONDS, LONGEST_REPEAT = 0.5, 2.0  # between tries, twice as long each time
UNDECIDED_SECONDS = 2.0
ON_ITS_WAY_SECONDS = 5.0  # more than the kernel tries to send to a server that does not answer (db/engine.py)
PLACE_ROUNDS = 5
SHORTLY = 0.1  # of `database.lock_timeout`: how long teams wait together, before each waits alone
Result = TypeVar("Result")


class Ledger:
    """Places and ends holds. Every verb raises GatewayError 503 when Postgres cannot be asked."""

    def __init__(self, database: Database, metrics: Metrics | None = None) -> None:
        self._database = database
        self._metrics = metrics or Metrics()
        self._sizes = {verb: self._metrics.ledger_batch_size.labels(verb) for verb in _VERBS}
        self._seconds = {verb: self._metrics.ledger_seconds.labels(verb) for verb in _VERBS}
        self._places: Batcher[Item, Any] = Batcher(self._send_places, _ident, _team)
        self._binds: Batcher[Item, bool] = Batcher(self._send_binds, _ident, _team)
        self._ends: Batcher[Item, Ended] = Batcher(self._send_ends, _ident, _team)
        self._unwritten: set[asyncio.Task[Any]] = set()
        self._unbound: set[tuple[UUID, str]] = set()

    async def place(self, order: Order) -> Placed:
        """A new hold on every quota that applies, or GatewayError 402 naming the one that refused; never a part of it.
        RepeatedError when the call repeats another.

        A caller that is cancelled, or that is told the database did not answer, leaves no hold behind: should it
        have been placed all the same, it is released.
        """
        hold_id = uuid7()
        placing = self._places.put(place_item(hold_id, order))
        try:
            row = await promptly(placing)
        except (GatewayError, asyncio.CancelledError):
            self._undo(hold_id, order, placing)
            raise
        if row.outcome == "repeated":
            raise RepeatedError
        if row.outcome != "placed":
            raise refusal(row, order)
        self._metrics.hold_events["placed"].inc()
        return Placed(id=hold_id, remaining=row.remaining, shadow_refused=row.shadow)

    async def bind(self, hold_id: UUID, order: Order, task: NewTask, sent: Sequence[SentVia]) -> None:
        """Records the accepted task with its owner; the hold stays open until the task ends.

        A task that is recorded for another hold stays that one's. No task will end this hold then, so it is unknown.
        """
        if await self._binds.submit(bind_item(hold_id, order, task, sent)):
            log.warning("task id already recorded", extra={"task_id": task.id, "hold": str(hold_id)})

    async def end(
        self,
        hold_id: UUID,
        conclusion: Conclusion,
        sent: Sequence[SentVia] = (),
        order: Order | None = None,
    ) -> Ended:
        """Ends a hold, or marks it unknown; nothing changes when it had ended before.

        With its order, a lock on its team's rows delays no other's ends.
        """
        return await self._end_of(self._put_end(hold_id, conclusion, sent, order), conclusion, order)

    async def end_surely(
        self,
        hold_id: UUID,
        conclusion: Conclusion,
        sent: Sequence[SentVia] = (),
        order: Order | None = None,
    ) -> Ended | None:
        """`end` for a call that has been sent: the caller goes on after at most five seconds, the verb is repeated
        until Postgres has it. An end that cannot be written at all is a defect, logged; the hold stays open."""
        until = monotonic() + WAIT_SECONDS
        ending = self._put_end(hold_id, conclusion, sent, order)
        try:
            await within(ending, WAIT_SECONDS)
        except asyncio.CancelledError:
            self._follow(ending, hold_id, conclusion, sent, order)
            raise
        if _failure(ending) is None:  # nearly always, and without a task of its own
            return self._counted(ending.result(), conclusion, order)
        followed = self._follow(ending, hold_id, conclusion, sent, order)
        await within(followed, until - monotonic())
        return followed.result() if _failure(followed) is None else None

    async def bind_surely(self, hold_id: UUID, order: Order, task: NewTask, sent: Sequence[SentVia]) -> None:
        """`bind`, likewise; until it is written `is_unbound` says so of the task."""

        async def until_written() -> None:
            try:
                await _repeat(lambda: self.bind(hold_id, order, task, sent))
            finally:  # given up as well: nobody should wait for it
                self._unbound.discard((order.team_id, task.id))

        self._unbound.add((order.team_id, task.id))
        await within(self._own(until_written()), WAIT_SECONDS)

    def is_unbound(self, team_id: UUID, task_id: str) -> bool:
        """Whether this process knows the team's task but could not write it down yet."""
        return (team_id, task_id) in self._unbound

    async def close(self, seconds: float = 5.0) -> None:
        """Gives verbs that are still being repeated a last chance."""
        if self._unwritten:
            await asyncio.wait(self._unwritten, timeout=seconds)
        for task in self._unwritten:
            task.cancel()

    def _follow(
        self,
        ending: asyncio.Future[Ended],
        hold_id: UUID,
        conclusion: Conclusion,
        sent: Sequence[SentVia],
        order: Order | None,
    ) -> asyncio.Task[Ended]:
        """The end that was begun, or one after it."""
        return self._own(
            _repeat(
                lambda: self.end(hold_id, conclusion, sent, order),
                lambda: self._end_of(ending, conclusion, order),
            )
        )

    def _put_end(
        self, hold_id: UUID, conclusion: Conclusion, sent: Sequence[SentVia], order: Order | None
    ) -> asyncio.Future[Ended]:
        team_id = None if order is None else order.team_id
        return self._ends.put(end_item(hold_id, conclusion, sent, team_id))

    async def _end_of(
        self, ending: asyncio.Future[Ended], conclusion: Conclusion, order: Order | None
    ) -> Ended:
        """A caller that is cancelled leaves the end in its batch: it still happens."""
        return self._counted(await asyncio.shield(ending), conclusion, order)

    def _counted(self, ended: Ended, conclusion: Conclusion, order: Order | None) -> Ended:
        if ended.changed:
            team, model = ("", "") if order is None else (order.team, order.model)
            self._metrics.hold_ended(conclusion.state, conclusion.settled, team, model)
        return ended

    async def _send_places(self, items: Sequence[Item], patient: bool) -> list[Any]:
        """One statement; once more for those whose quota had no counter for this period yet."""
        found: dict[str, Any] = {}
        for _ in range(PLACE_ROUNDS):
            waiting = [
                item for item in items if item["id"] not in found or found[item["id"]].outcome == "no_counter"
            ]
            if not waiting:
                break
            if found:
                await self._open_counters({item["team"] for item in waiting})
            found |= {str(row.id): row for row in await self._run("place", waiting, patient)}
        return [found[item["id"]] for item in items]

    async def _open_counters(self, teams: Iterable[str]) -> None:
        for team in sorted(teams):
            async with self._database.autocommit() as connection:
                await connection.execute(_OPEN_COUNTERS, {"team": team})

    async def _send_binds(self, items: Sequence[Item], patient: bool) -> list[bool]:
        """Whether each item's task is another hold's."""
        return [row.taken for row in await self._run("bind", items, patient)]

    async def _send_ends(self, items: Sequence[Item], patient: bool) -> list[Ended]:
        return _ended(await self._run("end", items, patient))

    async def _run(self, verb: str, items: Sequence[Item], patient: bool) -> Sequence[Any]:
        wait = self._database.lock_timeout * (1 - SHORTLY if patient else SHORTLY)
        self._sizes[verb].observe(len(items))
        began = perf_counter()
        try:
            items_json = msgspec.json.encode(items).decode()
            return await self._database.call(_VERBS[verb], items_json, f"{int(wait * 1000)}ms")
        finally:
            self._seconds[verb].observe(perf_counter() - began)

    def _undo(self, hold_id: UUID, order: Order, placing: asyncio.Future[Any]) -> None:
        """Releases a hold nobody will use, if it was placed at all."""
        released = Conclusion(state="released", reason="never sent")

        async def verb() -> None:
            await asyncio.wait({placing})
            if not placing.cancelled() and placing.exception() is None:
                if placing.result().outcome == "placed":
                    await self.end(hold_id, released, order=order)
                return
            # The connection is gone; the statement may still be on its way, run, or wait for a standby to commit.
            loop = asyncio.get_running_loop()
            asked, arrives_until = await self._now(), loop.time() + ON_ITS_WAY_SECONDS
            while True:
                undecided = loop.time() < arrives_until or await self._runs_since_before(asked)
                if (await self.end(hold_id, released, order=order)).changed or not undecided:
                    return
                await asyncio.sleep(UNDECIDED_SECONDS)

        self._own(_repeat(verb))

    async def _now(self) -> datetime:
        """By the database's clock."""
        async with self._database.autocommit() as connection:
            return cast("datetime", await connection.scalar(text("SELECT clock_timestamp()")))

    async def _runs_since_before(self, moment: datetime) -> bool:
        """Whether a transaction that may place a hold began before this moment and has not ended."""
        async with self._database.autocommit() as connection:
            return bool(await connection.scalar(_RUNNING, {"moment": moment}))

    def _own(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(work)
        self._unwritten.add(task)
        task.add_done_callback(self._unwritten.discard)
        task.add_done_callback(_log_defect)
        return task


class RepeatedError(GatewayError):
    """409: the call repeats one that is there, by its Idempotency-Key or by its `joinable`. No hold was placed."""

    def __init__(self) -> None:
        one = errors.idempotency_in_progress()
        super().__init__(one.status, one.type, one.reason, one.message, retry=one.retry, headers=one.headers)


def _log_defect(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a verb of the ledger is given up", exc_info=error)


def _failure(work: asyncio.Future[Any]) -> BaseException | None:
    """Why there is no result."""
    if not work.done():
        return TimeoutError()
    return asyncio.CancelledError() if work.cancelled() else work.exception()


async def _repeat(
    verb: Callable[[], Awaitable[Result]], first: Callable[[], Awaitable[Result]] | None = None
) -> Result:
    """What the verb comes to in the end; the `first` try may be under way already."""
    pause = REPEAT_SECONDS
    while True:
        try:
            return await (first or verb)()
        except GatewayError as error:
            first = None
            log.warning("a hold's end is not written down yet", extra={"reason": error.reason})
            await asyncio.sleep(pause * uniform(0.5, 1))  # noqa: S311 - so that not all come at once
            pause = min(2 * pause, LONGEST_REPEAT)


async def conclude(connection: AsyncConnection, hold_id: UUID, conclusion: Conclusion) -> Ended:
    """Ends a hold in the caller's transaction; nothing changes when it had ended before."""
    return (await conclude_all(connection, [(hold_id, conclusion)]))[0]


async def conclude_all(
    connection: AsyncConnection, conclusions: Sequence[tuple[UUID, Conclusion]]
) -> list[Ended]:
    """`conclude` for many holds in one statement."""
    return await _end(connection, [end_item(hold_id, conclusion) for hold_id, conclusion in conclusions])


def refusal(row: Any, order: Order) -> GatewayError:
    """The 402 for what `gateway_place` answered: which quota, and the arithmetic of it."""
    if row.outcome != "refused":
        return errors.dependency_unavailable(
            "The quotas of this team are being changed; nothing was sent to Pixapi. Try again shortly."
        )
    owner = "key" if row.on_key else "team"
    length = "total" if row.period == "total" else f"{_ADJECTIVE[row.period]}"
    resets = (
        "never" if row.resets_at is None else row.resets_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    )
    return errors.insufficient_quota(
        f"This call needs {to_text(order.quote)} credits, more than the {owner}'s {length} quota has left: "
        f"limit {to_text(row.limit_micro)}, used {to_text(row.settled)}, held {to_text(row.held)}, "
        f"resets {resets}. Nothing was sent; the platform team can raise the quota.",
        {
            "quota": {
                "scope": owner,
                "period": row.period,
                "limit": to_text(row.limit_micro),
                "settled": to_text(row.settled),
                "held": to_text(row.held),
                "needed": to_text(order.quote),
                "remaining": to_text(row.limit_micro - row.settled - row.held),
                "resets_at": None if row.resets_at is None else resets,
            }
        },
    )


async def _end(connection: AsyncConnection, items: Sequence[Item]) -> list[Ended]:
    rows = await connection.execute(_END_HERE, {"items": msgspec.json.encode(items).decode()})
    return _ended(rows.all())


def _ended(rows: Sequence[Any]) -> list[Ended]:
    return [Ended(changed=row.changed, remaining=row.remaining) for row in rows]


_VERBS = {"place": "gateway_place_calls", "bind": "gateway_bind", "end": "gateway_end"}
_END_HERE = text("SELECT * FROM gateway_end(CAST(:items AS jsonb), NULL)")
_RUNNING = text("""
SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()
                 AND coalesce(xact_start, backend_start) < :moment AND state <> 'idle')
""")
_OPEN_COUNTERS = text("SELECT gateway_open_counters(CAST(:team AS uuid))")
_ident: Callable[[Item], str] = itemgetter("id")
_team: Callable[[Item], str | None] = itemgetter("team")  # whose locks it may wait for; an end need not say
_ADJECTIVE = {"day": "daily", "week": "weekly", "month": "monthly"}
