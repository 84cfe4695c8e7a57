"""Reads one task: from what is fresh here or anywhere, from Postgres once it has ended, else from Pixapi.

The one settling path, walked by clients' polls and by the reconciler. All who ask for a task at one time share one
upstream read, made in a task of its own that no caller's leaving can break; processes agree in Postgres on who reads
(`Registry.begin_read`), so that an unfinished task is read at most once per interval and a key keeps to its reads a
second, failed reads included, whatever becomes of Redis. A failed read is never a verdict: everyone gets the last known
state, marked stale. So does a poll that would pass the reads a second of an upstream key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Literal, NamedTuple
from uuid import UUID

from gateway import errors
from gateway.clock import Clock
from gateway.credits.ledger import Ledger
from gateway.db.engine import promptly
from gateway.errors import GatewayError
from gateway.pool.dispatch import Dispatcher
from gateway.pool.pool import Lease
from gateway.pool.read_budget import ReadFor
from gateway.tasks.entries import TaskEntries
from gateway.tasks.reading import Cache, Reading
from gateway.tasks.registry import Registry, Seen, TaskRecord
from gateway.tasks.schedule import Pace
from gateway.tasks.status import conclusion_of, cost_of, goes_back, has_ended
from gateway.tasks.watch import Watch
from gateway.telemetry import Metrics
from gateway.upstream.answers import TaskState, task_state

log = logging.getLogger("gateway.tasks")

LARGEST_BODY = 8 * 1024 * 1024
OTHERS_SECONDS = 5.0  # for what another process is reading; then this one reads
FIRST_LOOK = 0.1

By = Literal["client", "reconciler"]


class _Flight(NamedTuple):
    """All who want this share one read."""

    team_id: UUID
    task_id: str
    renew: bool


class TaskReader:
    """Readings serve as long as `entries` says; `watch` tells of those made elsewhere."""

    def __init__(
        self,
        registry: Registry,
        ledger: Ledger,
        dispatcher: Dispatcher,
        clock: Clock,
        *,
        entries: TaskEntries,
        watch: Watch,
        pace: Pace | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._clock = clock
        self._entries = entries
        self._watch = watch
        self._pace = pace or Pace()
        self._metrics = metrics or Metrics()
        self._under_way: dict[_Flight, asyncio.Task[Reading]] = {}

    async def read(self, team_id: UUID, task_id: str, request_id: str, *, renew: bool = False) -> Reading:
        """The state of the team's task. Raises GatewayError 404 when the team has no such task.

        With `renew` nothing kept is good enough, if Pixapi may be asked now: also an ended task is read again.
        """
        if not renew and (known := self._entries.known(team_id, task_id)) is not None:
            return known
        return await self._shared(
            _Flight(team_id, task_id, renew),
            lambda: self._look_up(team_id, task_id, request_id, renew=renew),
        )

    async def last_known(self, team_id: UUID, task_id: str) -> Reading:
        """The state of the team's task as it was last read; Pixapi is not asked. Raises like `read`."""
        if (known := await self._entries.find(team_id, task_id)) is not None:
            return known
        record = await promptly(self._registry.find(team_id, task_id))
        if record is None:
            raise errors.task_not_found()
        return self._entries.recorded(record, "stale" if record.failed_reads and not record.ended else "hit")

    async def read_due(self, record: TaskRecord, request_id: str) -> bool:
        """The reconciler's read of a task it has claimed; false when it was not read, so that the claim still stands:
        it has only just been read, or Pixapi could not be asked now."""
        known = self._entries.known(record.team_id, record.id)
        if known is not None and known.asked:
            return False
        flight = _Flight(record.team_id, record.id, False)
        return (await self._shared(flight, lambda: self._read(record, request_id, "reconciler"))).asked

    async def close(self, seconds: float = 0.5) -> None:
        """Lets reads under way end, and cancels those that take longer: their tasks are read again."""
        running = set(self._under_way.values())
        if running:
            _, late = await asyncio.wait(running, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.wait(running)

    async def _shared(self, flight: _Flight, begin: Callable[[], Coroutine[Any, Any, Reading]]) -> Reading:
        """What the flight under way brings, or a new one: a task of its own that no caller's leaving can break."""
        running = self._under_way.get(flight)
        if running is not None:
            self._metrics.coalesced.labels("tasks").inc()
            reading = await asyncio.shield(running)
            return replace(reading, cache="coalesced") if reading.cache == "miss" else reading
        task = asyncio.create_task(begin())
        self._under_way[flight] = task
        task.add_done_callback(lambda done: self._finish(flight, done))
        return await asyncio.shield(task)

    def _finish(self, flight: _Flight, done: asyncio.Task[Reading]) -> None:
        del self._under_way[flight]
        if not done.cancelled():
            done.exception()  # every caller may have left

    async def _look_up(self, team_id: UUID, task_id: str, request_id: str, *, renew: bool) -> Reading:
        """From Postgres what has ended or was only just read, else from Pixapi."""
        record = await promptly(self._registry.find(team_id, task_id))
        if record is None and self._ledger.is_unbound(team_id, task_id):
            raise errors.dependency_unavailable(
                "The task is accepted but not recorded yet. Ask again shortly."
            )
        if record is None:
            raise errors.task_not_found()
        if record.ended and not renew:
            return self._entries.keep(team_id, task_id, self._entries.recorded(record, "hit"))
        if not renew and (known := self._entries.known(team_id, task_id)) is not None:
            return known  # the reconciler has read it meanwhile
        if record.read_ago is not None and 0 <= record.read_ago < self._entries.unfinished:
            # Somebody has just read it: that is as new as anybody may ask for.
            seen: Cache = "stale" if record.failed_reads and not record.ended else "hit"
            return self._entries.keep(team_id, task_id, self._entries.recorded(record, seen))
        return await self._read(record, request_id, "client")

    async def _read(self, record: TaskRecord, request_id: str, by: By) -> Reading:
        """Reads, or finds out why not; what came of it is kept for whoever asks next."""
        reading = await self._attempt(record, request_id, by)
        if reading is None and by == "client":
            reading = await self._other_s(record) or await self._attempt(record, request_id, by)
        if reading is None:
            reading = self._entries.recorded(record, "stale", asked=False)
        if reading.ended and reading.cache == "stale":
            return reading  # Pixapi could not be asked again: that is no reason to show it so from now on
        shown = self._entries.keep(record.team_id, record.id, reading)
        if reading.direct:
            self._watch.tell(record.team_id, record.id, shown)
        return shown

    async def _attempt(self, record: TaskRecord, request_id: str, by: By) -> Reading | None:
        """One try to read; None while another process is at it."""
        purpose = ReadFor.DUE if by == "reconciler" else ReadFor.RENEWAL if record.ended else ReadFor.POLL
        lease = self._dispatcher.take_task_read(record.account, record.upstream_key_id, purpose)
        if lease is None:
            return self._entries.recorded(record, "stale", asked=False)
        begun = None
        try:
            begun = await self._registry.begin_read(record.id, lease.key.id, again=record.ended)
        except GatewayError as error:
            log.warning("task not read", extra={"task_id": record.id, "reason": error.reason})
        if begun is not None and begun.verdict == "go":
            return await self._read_with(lease, record, begun.number, request_id, by)
        full = begun is not None and begun.verdict == "full"
        self._dispatcher.release(lease, made=full)  # made by another process, as far as this one's share goes
        if begun is None or full:
            return self._entries.recorded(record, "stale", asked=False)
        return None if begun.verdict == "busy" else await self._as_recorded_now(record)

    async def _other_s(self, record: TaskRecord) -> Reading | None:
        """What another process reads now, as soon as it is there; None when that takes too long."""
        self._metrics.coalesced.labels("tasks").inc()
        until = self._clock.monotonic() + OTHERS_SECONDS
        pause = FIRST_LOOK
        while not self._watch.closed and (left := until - self._clock.monotonic()) > 0:
            told = await self._watch.next(record.id, record.status, min(pause, left))
            if told is not None:
                return replace(told, direct=False)
            pause *= 2
            now = await self._registry.find(record.team_id, record.id)
            if now is not None and (now.ended or now.read_since(record)):
                return self._entries.recorded(now, "stale" if now.failed_reads else "coalesced")
            if now is not None and now.reads > record.reads:
                return None  # whoever was reading it has gone
        return None

    async def _as_recorded_now(self, record: TaskRecord) -> Reading:
        """What Postgres has of a task that another process has only just read."""
        now = await self._registry.find(record.team_id, record.id) or record
        return self._entries.recorded(now, "stale" if now.failed_reads and not now.ended else "hit")

    async def _read_with(
        self, lease: Lease, record: TaskRecord, number: int, request_id: str, by: By
    ) -> Reading:
        started = self._clock.monotonic()
        try:
            try:
                state, body = await self._ask(lease, record, request_id)
            except GatewayError as error:
                log.warning("task read failed", extra={"task_id": record.id, "reason": error.reason})
                await self._failed(record, record.age + self._clock.monotonic() - started)
            else:
                age = record.age + self._clock.monotonic() - started
                if record.ended:
                    return await self._renewed(record, number, state, body)
                return await self._store(record, number, state, body, age, by)
        except GatewayError as error:
            log.warning("task read not written down", extra={"task_id": record.id, "reason": error.reason})
        return self._entries.recorded(record, "stale", read_now=True)

    async def _failed(self, record: TaskRecord, age: float) -> None:
        if record.ended:
            await self._registry.renew(record, None)
        else:
            wait = self._pace.next_read(record.model, record.account, age, record.failed_reads + 1)
            await self._registry.note_failure(record, wait)

    async def _renewed(self, record: TaskRecord, number: int, state: TaskState, body: bytes) -> Reading:
        """An ended task as Pixapi shows it today. Its verdict stands: another one is no news but a failed read."""
        same = state.status == record.status
        await self._registry.renew(record, body if same else None)
        if not same:
            return self._entries.recorded(record, "stale")
        return self._entries.fresh(number, state.status, body, ended=True)

    async def _store(
        self, record: TaskRecord, number: int, state: TaskState, body: bytes, age: float, by: By
    ) -> Reading:
        if goes_back(record.status, state.status):
            state, body = replace(state, status=record.status), record.body
        ended = has_ended(state.status)
        conclusion = conclusion_of(state, record.quote) if ended else None
        seen = Seen(
            status=state.status,
            body=body,
            number=number,
            next_read=self._pace.next_read(record.model, record.account, age),
            cost=cost_of(state, record.quote) if ended else None,
            conclusion=conclusion,
        )
        stored = await self._registry.store(record, seen)
        if conclusion is not None and stored.hold_ended:
            self._metrics.hold_ended(conclusion.state, conclusion.settled, record.team, record.model)
        if conclusion is not None and stored.changed:
            self._metrics.tasks_settled.labels(by).inc()
            if "odd_cost" in conclusion.flags:
                self._metrics.odd_costs.inc()
                log.error(
                    "odd cost settled at the quote", extra={"task_id": record.id, "hold": str(record.hold_id)}
                )
            # One that was not read for a while ended who knows when.
            if state.status == "completed" and not record.failed_reads:
                unseen = age if record.read_ago is None else record.read_ago + age - record.age
                self._pace.learn(record.model, age, unseen)
        return self._entries.fresh(number, stored.status, stored.body, ended=stored.ended)

    async def _ask(self, lease: Lease, record: TaskRecord, request_id: str) -> tuple[TaskState, bytes]:
        """Pixapi's own word on the task; raises GatewayError for anything that is not one."""
        reply = await self._dispatcher.read_with(lease, f"/v1/tasks/{record.id}", request_id)
        try:
            if reply.body.size > LARGEST_BODY:
                raise errors.upstream_error("Pixapi's task is larger than any task can be.")
            body = b"".join([chunk async for chunk in reply.body.chunks()])
        finally:
            reply.body.close()
        state = task_state(body)
        if state is None or state.id != record.id:
            raise errors.upstream_error("Pixapi's answer is not this task.")
        return state, body
