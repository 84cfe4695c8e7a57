"""Reads one task: from memory while it is fresh, from Postgres once it has ended, else from Pixapi.

The one settling path, walked by clients' polls and by the reconciler. All who ask for a task at one time share one
upstream read, made in a task of its own that no caller's leaving can break, and an unfinished task is read at most once
per `unfinished` seconds, failed reads included. A failed read is never a verdict: everyone gets the last known state,
marked stale. So does a poll that would pass the reads a second of an upstream key.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from gateway import errors
from gateway.clock import Clock
from gateway.credits.ledger import Ledger
from gateway.db.engine import promptly
from gateway.errors import GatewayError
from gateway.pool.dispatch import Dispatcher
from gateway.pool.pool import Lease
from gateway.tasks.registry import Registry, Seen, TaskRecord
from gateway.tasks.schedule import Pace
from gateway.tasks.status import conclusion_of, cost_of, has_ended
from gateway.telemetry import Metrics
from gateway.upstream.answers import TaskState, task_state

log = logging.getLogger("gateway.tasks")

LARGEST_BODY = 8 * 1024 * 1024

Cache = Literal["hit", "miss", "coalesced", "stale"]
By = Literal["client", "reconciler"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A task as a client gets it: `read_at` is monotonic, `cache` says where this came from.

    `asked` is false when Pixapi could not be asked now: nothing was read, and nothing failed.
    """

    body: bytes
    ended: bool
    read_at: float
    cache: Cache
    asked: bool = True


class TaskReader:
    """`unfinished` in seconds: how long one reading of a running task serves everyone."""

    def __init__(
        self,
        registry: Registry,
        ledger: Ledger,
        dispatcher: Dispatcher,
        clock: Clock,
        unfinished: float = 2.0,
        *,
        pace: Pace | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._clock = clock
        self._unfinished = unfinished
        self._pace = pace or Pace()
        self._metrics = metrics or Metrics()
        self._readings: dict[tuple[UUID, str], Reading] = {}
        self._under_way: dict[str, asyncio.Task[Reading]] = {}

    async def read(self, team_id: UUID, task_id: str, request_id: str) -> Reading:
        """The state of the team's task. Raises GatewayError 404 when the team has no such task."""
        if (known := self._fresh(team_id, task_id)) is not None:
            return known
        record = await promptly(self._registry.find(team_id, task_id))
        if record is None and self._ledger.is_unbound(task_id):
            raise errors.dependency_unavailable(
                "The task is accepted but not recorded yet. Ask again shortly."
            )
        if record is None:
            raise errors.task_not_found()
        if record.ended:
            return Reading(record.body, True, self._clock.monotonic(), "hit")
        if (known := self._fresh(team_id, task_id)) is not None:
            return known  # read by someone else while this one asked the registry
        if record.read_ago is not None and record.read_ago < self._unfinished:
            seen: Cache = "stale" if record.failed_reads else "hit"  # another process has just read it
            return Reading(record.body, False, self._clock.monotonic() - record.read_ago, seen)
        return await self._shared(record, request_id, "client")

    async def read_due(self, record: TaskRecord, request_id: str) -> bool:
        """The reconciler's read of a task it has claimed; false when it was not read, so that the claim still stands:
        it has only just been read, or Pixapi could not be asked now."""
        known = self._fresh(record.team_id, record.id)
        if known is not None and known.asked:
            return False
        return (await self._shared(record, request_id, "reconciler")).asked

    async def close(self, seconds: float = 0.5) -> None:
        """Lets reads under way end, and cancels those that take longer: their tasks are read again."""
        running = set(self._under_way.values())
        if running:
            _, late = await asyncio.wait(running, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.wait(running)

    async def _shared(self, record: TaskRecord, request_id: str, by: By) -> Reading:
        running = self._under_way.get(record.id)
        if running is not None:
            reading = await asyncio.shield(running)
            shared: Cache = "stale" if reading.cache == "stale" else "coalesced"
            return replace(reading, cache=shared)
        task = asyncio.create_task(self._read(record, request_id, by))
        self._under_way[record.id] = task
        task.add_done_callback(lambda done: self._finish(record.id, done))
        return await asyncio.shield(task)

    def _fresh(self, team_id: UUID, task_id: str) -> Reading | None:
        known = self._readings.get((team_id, task_id))
        if known is None or self._clock.monotonic() - known.read_at >= self._unfinished:
            return None
        return replace(known, cache="stale" if known.cache == "stale" else "hit")

    def _finish(self, task_id: str, done: asyncio.Task[Reading]) -> None:
        del self._under_way[task_id]
        if not done.cancelled():
            done.exception()  # every caller may have left

    async def _read(self, record: TaskRecord, request_id: str, by: By) -> Reading:
        started = self._clock.monotonic()
        lease = self._dispatcher.take_task_read(
            record.account, record.upstream_key_id, due=by == "reconciler"
        )
        if lease is None:
            reading = Reading(record.body, False, started, "stale", asked=False)
        else:
            reading = await self._read_with(lease, record, request_id, by)
        self._keep((record.team_id, record.id), reading)
        return reading

    async def _read_with(self, lease: Lease, record: TaskRecord, request_id: str, by: By) -> Reading:
        started = self._clock.monotonic()
        try:
            try:
                state, body = await self._ask(lease, record, request_id)
            except GatewayError as error:
                log.warning("task read failed", extra={"task_id": record.id, "reason": error.reason})
                age = record.age + self._clock.monotonic() - started
                wait = self._pace.next_read(record.model, record.account, age, record.failed_reads + 1)
                await self._registry.note_failure(record, wait)
            else:
                age = record.age + self._clock.monotonic() - started
                body = await self._store(record, state, body, age, by)
                return Reading(body, has_ended(state.status), self._clock.monotonic(), "miss")
        except GatewayError as error:
            log.warning("task read not written down", extra={"task_id": record.id, "reason": error.reason})
        return Reading(record.body, False, self._clock.monotonic(), "stale")

    async def _store(self, record: TaskRecord, state: TaskState, body: bytes, age: float, by: By) -> bytes:
        ended = has_ended(state.status)
        conclusion = conclusion_of(state, record.quote) if ended else None
        seen = Seen(
            status=state.status,
            body=body,
            next_read=self._pace.next_read(record.model, record.account, age),
            cost=cost_of(state, record.quote) if ended else None,
            conclusion=conclusion,
        )
        stored = await self._registry.store(record, seen)
        if conclusion is not None and stored.changed:
            self._metrics.tasks_settled.labels(by).inc()
            if "odd_cost" in conclusion.flags:
                self._metrics.odd_costs.inc()
                log.error(
                    "odd cost settled at the quote", extra={"task_id": record.id, "hold": str(record.hold_id)}
                )
            if (
                state.status == "completed" and not record.failed_reads
            ):  # else it was last seen who knows when
                unseen = age if record.read_ago is None else record.read_ago + age - record.age
                self._pace.learn(record.model, age, unseen)
        return stored.body

    def _keep(self, key: tuple[UUID, str], reading: Reading) -> None:
        """Keeps a reading and drops those that serve nobody any more: the oldest are first."""
        self._readings.pop(key, None)
        self._readings[key] = reading
        while (oldest := next(iter(self._readings))) != key:
            if reading.read_at - self._readings[oldest].read_at < self._unfinished:
                break
            del self._readings[oldest]

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
