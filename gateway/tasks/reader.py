"""Reads one task: from memory while it is fresh, from Postgres once it has ended, else from Pixapi.

All who ask for a task at one time share one upstream read, made in a task of its own that no caller's leaving can
break, and an unfinished task is read at most once per `unfinished` seconds, failed reads included. A failed read
is never a verdict: everyone gets the last known state, marked stale.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from gateway import errors
from gateway.clock import Clock
from gateway.credits.ledger import Ledger
from gateway.db.engine import promptly
from gateway.errors import GatewayError
from gateway.pool.dispatch import Dispatcher
from gateway.tasks.registry import Registry, TaskRecord
from gateway.tasks.status import conclusion_of, cost_of, has_ended
from gateway.upstream.answers import TaskState, task_state

log = logging.getLogger("gateway.tasks")

LARGEST_BODY = 8 * 1024 * 1024

Cache = Literal["hit", "miss", "coalesced", "stale"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A task as a client gets it: `read_at` is monotonic, `cache` says where this came from."""

    body: bytes
    ended: bool
    read_at: float
    cache: Cache


class TaskReader:
    """`unfinished` in seconds: how long one reading of a running task serves everyone."""

    def __init__(
        self,
        registry: Registry,
        ledger: Ledger,
        dispatcher: Dispatcher,
        clock: Clock,
        unfinished: float = 2.0,
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._clock = clock
        self._unfinished = unfinished
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
        running = self._under_way.get(task_id)
        if running is not None:
            reading = await asyncio.shield(running)
            shared: Cache = "stale" if reading.cache == "stale" else "coalesced"
            return Reading(reading.body, reading.ended, reading.read_at, shared)
        task = asyncio.create_task(self._read(record, request_id))
        self._under_way[task_id] = task
        task.add_done_callback(lambda done: self._finish(task_id, done))
        return await asyncio.shield(task)

    def _fresh(self, team_id: UUID, task_id: str) -> Reading | None:
        known = self._readings.get((team_id, task_id))
        if known is None or self._clock.monotonic() - known.read_at >= self._unfinished:
            return None
        seen: Cache = "stale" if known.cache == "stale" else "hit"
        return Reading(known.body, known.ended, known.read_at, seen)

    def _finish(self, task_id: str, done: asyncio.Task[Reading]) -> None:
        del self._under_way[task_id]
        if not done.cancelled():
            done.exception()  # every caller may have left

    async def _read(self, record: TaskRecord, request_id: str) -> Reading:
        try:
            state, body = await self._ask(record, request_id)
            ended = has_ended(state.status)
            conclusion = conclusion_of(state, record.quote) if ended else None
            cost = cost_of(state, record.quote) if ended else None
            body = await self._registry.store(record, state.status, body, cost, conclusion)
            reading = Reading(body, ended, self._clock.monotonic(), "miss")
        except GatewayError as error:
            log.warning("task read failed", extra={"task_id": record.id, "reason": error.reason})
            reading = Reading(record.body, False, self._clock.monotonic(), "stale")
        self._keep((record.team_id, record.id), reading)
        return reading

    def _keep(self, key: tuple[UUID, str], reading: Reading) -> None:
        """Keeps a reading and drops those that serve nobody any more: the oldest are first."""
        self._readings.pop(key, None)
        self._readings[key] = reading
        while (oldest := next(iter(self._readings))) != key:
            if reading.read_at - self._readings[oldest].read_at < self._unfinished:
                break
            del self._readings[oldest]

    async def _ask(self, record: TaskRecord, request_id: str) -> tuple[TaskState, bytes]:
        """Pixapi's own word on the task; raises GatewayError for anything that is not one."""
        reply = await self._dispatcher.read(
            f"/v1/tasks/{record.id}", record.account, request_id, preferred=record.upstream_key_id
        )
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
