"""Waits for calls of other processes: one look a second at Postgres for all of them, at once when one is heard of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from gateway.errors import GatewayError
from gateway.repeats.records import Record, Records

log = logging.getLogger("gateway.repeats")

LOOK_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Wait:
    """One that waits: `record` is its call's as last seen, None when it has gone; `looked` tells of each look."""

    record: Record | None
    looked: asyncio.Event = field(default_factory=asyncio.Event)

    async def next(self, seconds: float) -> None:
        """Returns after the next look, or so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self.looked.wait()
        except TimeoutError:
            return
        finally:
            self.looked.clear()


class Looks:
    """Looks while somebody waits. A look that fails says nothing; the next one comes in its time."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._waits: dict[UUID, set[Wait]] = {}
        self._heard: set[UUID] = set()
        self._told = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self.closed = False

    @contextmanager
    def wait(self, record: Record) -> Iterator[Wait]:
        """Looks for this call too until the block ends."""
        wait = Wait(record)
        self._waits.setdefault(record.hold_id, set()).add(wait)
        if not self.closed and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look_on())
        try:
            yield wait
        finally:
            waits = self._waits[record.hold_id]
            waits.discard(wait)
            if not waits:
                del self._waits[record.hold_id]
                if not self._waits:
                    self._told.set()

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waits

    def heard(self, hold_id: UUID) -> None:
        """Something has happened to the call: it is looked for at once, if anyone waits for it."""
        if hold_id in self._waits:
            self._heard.add(hold_id)
            self._told.set()

    async def close(self) -> None:
        """No more looks; everyone who waits goes on."""
        self.closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        for waits in self._waits.values():
            for wait in waits:
                wait.looked.set()

    async def _look_on(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + LOOK_SECONDS
        while self._waits:
            await self._until(due)
            hold_ids, self._heard = self._heard & self._waits.keys(), set()
            if loop.time() >= due:
                hold_ids, due = set(self._waits), loop.time() + LOOK_SECONDS
            try:
                await self._look(hold_ids)
            except GatewayError:
                continue
            except Exception:
                log.exception("calls of other processes cannot be looked for")

    async def _until(self, due: float) -> None:
        try:
            async with asyncio.timeout_at(due):
                await self._told.wait()
        except TimeoutError:
            return
        finally:
            self._told.clear()

    async def _look(self, hold_ids: set[UUID]) -> None:
        if not hold_ids:
            return
        asked = {hold_id: set(self._waits[hold_id]) for hold_id in hold_ids}  # who comes meanwhile knows more
        found = await self._records.by_holds(sorted(hold_ids))
        for hold_id, waits in asked.items():
            for wait in waits:
                wait.record = found.get(hold_id)
                wait.looked.set()
