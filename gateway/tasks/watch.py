"""Who waits for a task to change: told at once of what this process reads, and of what others publish.

Nobody here asks Pixapi. While somebody waits for a task, the reconciler is asked to read it as often as it may, within
its room; so any number of waiting clients costs what one polling client costs. Without Redis nothing is published, and
Postgres is looked at every second, once for all who wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from gateway.cache.events import Event, Events
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.tasks.due import DueTasks
from gateway.tasks.entries import TaskEntries
from gateway.tasks.reading import Reading
from gateway.tasks.registry import Registry, TaskRecord

log = logging.getLogger("gateway.tasks")

TOPIC = "task"
LOOK_SECONDS = 1.0


class Watch:
    """`room` answers how many task reads could be made at once."""

    def __init__(
        self,
        registry: Registry,
        due: DueTasks,
        entries: TaskEntries,
        events: Events,
        clock: Clock,
        room: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._due = due
        self._entries = entries
        self._events = events
        self._clock = clock
        self._room = room
        self._waited_for: dict[str, _Wait] = {}
        self._fetching: set[asyncio.Task[None]] = set()
        self._closed = False
        events.listen(TOPIC, self._heard)

    @property
    def closed(self) -> bool:
        """Whether nobody can wait any more."""
        return self._closed

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(wait.waiting for wait in self._waited_for.values())

    def tell(self, team_id: UUID, task_id: str, reading: Reading) -> None:
        """This process has read the task: tells those who wait here, and other processes."""
        self._tell(task_id, reading)
        ended, number, _ = reading.rank
        self._events.publish(TOPIC, f"{team_id.hex}:{task_id}:{ended:d}:{number}")

    async def next(self, task_id: str, status: str, seconds: float) -> Reading | None:
        """The next reading of a task last seen in `status`; None when there is none in time, or the process ends."""
        if self._closed:
            return None
        wait = self._waited_for.setdefault(task_id, _Wait(status))
        wait.waiting += 1
        try:
            await asyncio.wait({wait.told}, timeout=seconds)
        finally:
            wait.waiting -= 1
            if not wait.waiting and self._waited_for.get(task_id) is wait:
                del self._waited_for[task_id]
        return wait.told.result() if wait.told.done() else None

    async def change(self, task_id: str, seen: Reading, seconds: float) -> Reading | None:
        """The first reading whose status is not the one seen; None when `seconds` pass before."""
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            told = await self.next(task_id, seen.status, left)
            if told is None:
                return None
            if told.status != seen.status:
                return told
        return None

    async def look(self) -> None:
        """Has the reconciler read what is waited for, and tells of what has changed in Postgres meanwhile."""
        seen = {task_id: wait.status for task_id, wait in self._waited_for.items()}
        if not seen:
            return
        for record in await self._registry.changed(seen):
            self._found(record)
        if (most := self._room()) > 0:
            await self._due.hurry(list(seen), most, self._entries.unfinished)

    def close(self) -> None:
        """Nobody waits any longer: the process is ending."""
        self._closed = True
        for wait in self._waited_for.values():
            if not wait.told.done():
                wait.told.set_result(None)
        for task in self._fetching:
            task.cancel()

    def _tell(self, task_id: str, reading: Reading) -> None:
        wait = self._waited_for.pop(task_id, None)
        if wait is not None and not wait.told.done():
            wait.told.set_result(reading if reading.cache == "stale" else replace(reading, cache="coalesced"))

    def _heard(self, event: Event) -> None:
        try:
            team, task_id, ended, number = event.ident.split(":")
            team_id, rank = UUID(hex=team), (ended == "1", int(number))
        except ValueError:
            return
        if self._entries.outdate(task_id, *rank) and task_id in self._waited_for:
            task = asyncio.create_task(self._fetch(team_id, task_id))
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)

    async def _fetch(self, team_id: UUID, task_id: str) -> None:
        try:
            reading = await self._entries.find(team_id, task_id)
            if reading is not None:
                self._tell(task_id, reading)
            elif (record := await self._registry.find(team_id, task_id)) is not None:
                self._found(record)
        except GatewayError as error:
            log.warning("a task that changed is looked at later", extra={"reason": error.reason})

    def _found(self, record: TaskRecord) -> None:
        reading = self._entries.recorded(record, "stale" if record.failed_reads else "hit")
        self._tell(record.id, self._entries.keep(record.team_id, record.id, reading))


class _Wait:
    """Those who wait for one task, last seen in `status`."""

    def __init__(self, status: str) -> None:
        self.status = status
        self.waiting = 0
        self.told: asyncio.Future[Reading | None] = asyncio.get_running_loop().create_future()
