"""Reads tasks that are due, whether or not any client polls, so that each settles soon after its end.

Runs in every process. Work is claimed in Postgres under a lease, so processes read different tasks and what a killed
one had claimed comes back. Many reads are under way at once, each on its own: one that hangs delays no other. How often
a task is read is decided in `schedule`, how it is read and settled in `reader`.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.ids import uuid7
from gateway.pool.pool import Pool
from gateway.pool.read_budget import Reserve
from gateway.tasks.due import Backlog, DueTasks
from gateway.tasks.reader import TaskReader
from gateway.tasks.registry import TaskRecord
from gateway.tasks.schedule import LONGEST, Pace, stretch_of
from gateway.telemetry import Metrics

log = logging.getLogger("gateway.reconciler")

MOST_READS = 128  # under way at once: the read time-out times the reads a second of a few keys
TICK, SHORTEST_TICK, IDLE = 0.25, 0.02, 0.5
LOOK = 1.0  # between looks at the whole backlog
URGENT = LONGEST - 5.0  # unread for so long, a task goes before clients' polls
AFTER_TROUBLE = 1.0


class Reconciler:
    """`reads_per_second` of one upstream key; `lease` in seconds must outlast a read."""

    def __init__(
        self,
        due: DueTasks,
        reader: TaskReader,
        pool: Pool,
        pace: Pace,
        *,
        metrics: Metrics,
        clock: Clock,
        reads_per_second: float = 5.0,
        lease: float = 20.0,
    ) -> None:
        self._due = due
        self._reader = reader
        self._pool = pool
        self._pace = pace
        self._metrics = metrics
        self._clock = clock
        self._reads_per_second = reads_per_second
        self._lease = lease
        self._look_at = 0.0
        self.stretched = 1.0  # by how much task reads are rarer than promised
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Reads what is due, for ever; trouble is logged and tried again."""
        while True:
            try:
                pause = await self.once()
            except GatewayError as error:
                log.warning("tasks are not read now", extra={"reason": error.reason})
                pause = AFTER_TROUBLE
            except Exception:
                log.exception("tasks are not read now")
                pause = AFTER_TROUBLE
            await asyncio.sleep(pause)

    async def once(self) -> float:
        """Starts reading what is due and may be read now; the seconds until it is worth coming back."""
        now = self._clock.monotonic()
        if now >= self._look_at:
            self._look(await self._due.backlog())
            self._look_at = now + LOOK
        room = _within(self._pool.read_room(), MOST_READS - len(self._reading))
        claimed = await self._due.claim(room, self._lease) if room else []
        for record in claimed:
            self._start(record)
        if room and len(claimed) < sum(room.values()):
            return IDLE  # nothing more is due
        return min(max(self._pool.reads_open_in(), SHORTEST_TICK), TICK)

    async def close(self) -> None:
        """Leaves what is being read to other processes."""
        left = dict(self._reading)
        for task in left.values():
            task.cancel()
        if not left:
            return
        await asyncio.wait(left.values(), timeout=1)
        try:
            await self._due.give_back(list(left))
        except GatewayError as error:
            log.warning("claims end by themselves", extra={"reason": error.reason})

    def _look(self, backlogs: list[Backlog]) -> None:
        """Sets the pace and the gauges by what lies ahead."""
        factors = {
            backlog.account: stretch_of(
                backlog.open, self._reads_per_second, len(self._pool.readers(backlog.account))
            )
            for backlog in backlogs
        }
        self._pace.stretch(factors)
        for backlog in backlogs:
            self._pool.reserve_reads(backlog.account, reserve_for(backlog))
        self._metrics.open_tasks.set(sum(backlog.open for backlog in backlogs))
        self._metrics.reconciler_lag.set(max((backlog.late for backlog in backlogs), default=0.0))
        self.stretched = max(factors.values(), default=1.0)
        self._metrics.reconciler_stretched.set(self.stretched)

    def _start(self, record: TaskRecord) -> None:
        task = asyncio.create_task(self._read(record))
        self._reading[record.id] = task
        task.add_done_callback(lambda _: self._reading.pop(record.id, None))

    async def _read(self, record: TaskRecord) -> None:
        try:
            if not await self._reader.read_due(record, f"req_{uuid7().hex}"):
                await self._due.give_back([record.id])
        except GatewayError as error:
            log.warning("task is read later", extra={"task_id": record.id, "reason": error.reason})
        except Exception:
            log.exception("task is read later", extra={"task_id": record.id})


def reserve_for(backlog: Backlog) -> Reserve:
    """How many of an account's reads are kept from clients' polls: none unless tasks wait to be read."""
    if not backlog.due:
        return Reserve.NOTHING
    return Reserve.ALL if backlog.unread >= URGENT else Reserve.HALF


def _within(room: dict[str, int], most: int) -> dict[str, int]:
    """The room of each account that has some, together at most `most`, in fair turns."""
    left = max(0, most)
    found: dict[str, int] = {}
    for position, (account, free) in enumerate(sorted(room.items(), key=lambda item: item[1])):
        share = min(free, left // (len(room) - position))
        left -= share
        if share:
            found[account] = share
    return found
