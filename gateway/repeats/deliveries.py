"""Answers that their clients have: shared with other processes for a while, and noted with their records.

A retry may come although the answer arrived, since the client may have left just then. A record that says "delivered"
a moment late costs nothing, so many are shared, noted and told of at once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import Context
from uuid import UUID

from gateway.cache.events import Events
from gateway.errors import GatewayError
from gateway.repeats.answer import Answer
from gateway.repeats.recent import Recent, RecentCalls
from gateway.repeats.records import Records
from gateway.repeats.shelf import Shelf, is_large
from gateway.repeats.work import Work

TOPIC = "call"  # of events; they name one hold or several
GRACE_SECONDS = (
    10.0  # after its answer was written out a call can still be joined: the client may have just left
)
TAKEN_SECONDS = 5.0  # who joined in the last moment of that still finds its record, and its file
NOTE_SECONDS = 0.05
_LIVES = GRACE_SECONDS + TAKEN_SECONDS


class Deliveries:
    """Those of one process."""

    def __init__(
        self, records: Records, shelf: Shelf, events: Events, recent: RecentCalls, work: Work
    ) -> None:
        self._records = records
        self._shelf = shelf
        self._events = events
        self._recent = recent
        self._work = work
        self._hold_ids: list[UUID] = []  # not yet noted
        self._unshared: list[Recent] = []  # of these, whose answers lie in this process alone

    def add(self, call: Recent) -> None:
        """A client got its answer in full, of a call that an SDK may retry."""
        if is_large(answer := call.answer.result()):
            self._work.start(self._file(call, answer))
        else:
            self._unshared.append(call)
            self.note(call.hold_id)

    def note(self, hold_id: UUID) -> None:
        """A client, or a repeat, got an answer that lies where others find it."""
        self._hold_ids.append(hold_id)
        if len(self._hold_ids) == 1:
            asyncio.get_running_loop().call_later(NOTE_SECONDS, self.write, context=Context())

    def write(self) -> None:
        """Writes down in the background what there is."""
        hold_ids, self._hold_ids = self._hold_ids, []
        unshared, self._unshared = self._unshared, []
        if hold_ids:
            self._work.start(self._write(hold_ids, unshared))

    async def _write(self, hold_ids: list[UUID], unshared: list[Recent]) -> None:
        """Shared before the records say that they were delivered: who joins elsewhere looks for the answers then. Told
        after that: who waits elsewhere looks at the records."""
        await self._shelf.share([(one.hold_id, one.answer.result()) for one in unshared], _LIVES)
        for one in unshared:
            one.there = True
        self._forget_later(unshared)
        await self._work.until_written(lambda: self._records.delivered(hold_ids, _LIVES))
        self._events.publish(TOPIC, " ".join([hold_id.hex for hold_id in hold_ids]))

    async def _file(self, call: Recent, answer: Answer) -> None:
        """A large answer goes from here as soon as it lies elsewhere, and frees its share of the spool."""
        filed = False
        with suppress(GatewayError):
            filed = await self._shelf.file(call.hold_id, answer, _LIVES)
        if filed:
            self._recent.drop(call)
        else:
            self._forget_later([call])
        self.note(call.hold_id)

    def _forget_later(self, calls: list[Recent]) -> None:
        """When nobody can join them any more, or sooner for want of room."""

        def forget() -> None:
            for call in calls:
                self._recent.drop(call)

        for call in calls:
            call.written = True
        asyncio.get_running_loop().call_later(GRACE_SECONDS, forget, context=Context())
