"""No paid call is paid twice because something repeated it.

A call with an Idempotency-Key answers every repeat of it for a day. A call without one is joined by the retries of the
SDK that sent it: while it runs, and as long as its answer was not written out to its client. Which call a repeat
belongs to is decided in Postgres; where its answer lies is said in `shelf`. An answer that is nowhere any more is an
error: the call is never made a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from gateway import errors
from gateway.cache.events import Event, Events
from gateway.clock import Clock
from gateway.credits.terms import Repeatable
from gateway.repeats.answer import Answer
from gateway.repeats.deliveries import GRACE_SECONDS, TOPIC, Deliveries
from gateway.repeats.looks import Looks
from gateway.repeats.recent import Recent, RecentCalls
from gateway.repeats.records import Record, Records
from gateway.repeats.shelf import Shelf
from gateway.repeats.work import Work
from gateway.waiting import within

KEPT_AT_ONCE = 4  # each has its answer in memory meanwhile
STORE_SECONDS = 5.0  # a client waits so long for its answer to be kept
SLOW_SECONDS = 5.0  # well before another process takes an answer that is nowhere for lost

Join = Literal["sdk", "any", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`window`, `retention` and `longest_call` in seconds."""

    join: Join = "sdk"
    window: float = 600.0
    retention: float = 86_400.0
    longest_call: float = 1200.0


class Repeats:
    """Told by paid calls how they end, asked by requests whether they repeat one."""

    def __init__(
        self,
        records: Records,
        shelf: Shelf,
        events: Events,
        clock: Clock,
        rules: Rules,
    ) -> None:
        self._records = records
        self._shelf = shelf
        self._events = events
        self._clock = clock
        self._rules = rules
        self._recent = RecentCalls()
        self._work = Work()
        self._deliveries = Deliveries(records, shelf, events, self._recent, self._work)
        self._slow_are_due = False
        self._looks = Looks(records)
        self._room_to_keep = asyncio.Semaphore(KEPT_AT_ONCE)
        events.listen(TOPIC, self._heard)

    def repeatable(
        self, idempotency_key: str | None, fingerprint: bytes, number: int = 0
    ) -> Repeatable | None:
        """How a repeat of a call is to be known, `number` being which retry it says it is (0: none); None when nothing
        can repeat it."""
        if idempotency_key is not None:
            return Repeatable(
                idempotency_key=idempotency_key,
                fingerprint=fingerprint,
                lives=self._rules.longest_call + self._rules.retention,
            )
        if self._rules.join == "off":
            return None
        return Repeatable(
            idempotency_key=None,
            fingerprint=fingerprint,
            lives=self._rules.longest_call + self._rules.window,
            joinable=self._rules.window if number or self._rules.join == "any" else None,
            grace=GRACE_SECONDS,
            number=None if self._rules.join == "any" else number,
        )

    # The first call ------------------------------------------------------------------------------------------

    def began(self, hold_id: UUID, repeatable: Repeatable) -> Recent:
        """A call that can be repeated is being sent. It is told of by what this answers."""
        return self._recent.begin(hold_id, by_key=repeatable.idempotency_key is not None)

    async def keep(self, call: Recent, answer: Answer) -> None:
        """Puts the answer of a call with a key where it lasts, before its client gets a byte; waits 5 s at most."""
        if answer.executed and call.by_key:
            keeping = self._begin_to_keep(call, answer, self._rules.retention)
            await within(keeping, STORE_SECONDS)

    def ended(self, call: Recent, answer: Answer, close: Callable[[], None]) -> None:
        """The call has answered. `close` frees the answer's body when nobody can ask for it any more."""
        self._recent.end(call, answer, close)
        if not answer.executed:  # of the others other processes hear when the answer lies where they find it
            self._events.publish(TOPIC, call.hold_id.hex)
        elif not self._slow_are_due:
            self._look_for_slow(SLOW_SECONDS)

    def written(self, call: Recent, delivered: bool) -> None:
        """Its client got the answer in full, or had left before."""
        if call.dropped:  # the process is ending
            return
        answer = call.answer.result()
        if call.keeping is not None:  # it still reads the answer's body
            call.replayed |= delivered and not call.by_key
            call.keeping.add_done_callback(lambda _: self._recent.drop(call))
        elif not answer.executed or call.by_key:
            self._recent.drop(call)
        else:
            call.kept = True
            if delivered:
                self._deliveries.add(call)
            else:
                self._work.start(self._keep_and_drop(call, answer))

    def gave_up(self, call: Recent) -> None:
        """The call ends without an answer, because the process does."""
        self._recent.drop(call)

    # The repeat ----------------------------------------------------------------------------------------------

    async def find(
        self, team_id: UUID, key_id: str, repeatable: Repeatable | None, number: int
    ) -> Record | None:
        """The call that this request repeats, `number` being which retry it says it is (0: none); None for a new call.

        Raises GatewayError 409 or 422 for an Idempotency-Key that cannot be answered now, or not for this request.
        """
        if repeatable is None:
            return None
        if repeatable.idempotency_key is not None:
            found = await self._records.by_key(team_id, repeatable.idempotency_key)
            if found is not None and found.fingerprint != repeatable.fingerprint:
                raise errors.idempotency_mismatch()
            if found is not None and await self._shelf.answer(found) is None:
                raise errors.idempotency_in_progress()
            return found
        if number == 0 and self._rules.join != "any":
            return None
        return await self._records.take(
            key_id,
            repeatable.fingerprint,
            max(number, 1),
            any_number=self._rules.join == "any",
            window=self._rules.window,
            grace=GRACE_SECONDS,
        )

    @asynccontextmanager
    async def answer(self, record: Record) -> AsyncIterator[Answer]:
        """The answer of the call, waited for while it runs. Raises GatewayError when it cannot be had any more."""
        async with self._recent.answer(record.hold_id) as recent:
            if recent is not None:
                yield recent
                return
            yield await self._waited_for(record)

    def replayed(self, record: Record, repeatable: Repeatable) -> None:
        """A repeat got the answer in full. One that it got from here is noted when others find it elsewhere."""
        if repeatable.idempotency_key is not None:
            return
        call = self._recent.calls.get(record.hold_id)
        if call is None or call.there:
            self._deliveries.note(record.hold_id)
        else:
            call.replayed = True

    # Beside --------------------------------------------------------------------------------------------------

    async def clear(self) -> None:
        """Forgets what has expired."""
        await self._shelf.clear(await self._records.clear())

    async def close(self, seconds: float = 2.0) -> None:
        """Lets what is being written down end; who still waits is told that it is not known."""
        await self._looks.close()
        self._deliveries.write()
        await self._work.close(seconds, self._deliveries.write)  # what is filed meanwhile is delivered then
        for call in list(self._recent.calls.values()):
            self._recent.drop(call)

    async def _waited_for(self, record: Record) -> Answer:
        until = self._clock.monotonic() + self._rules.longest_call
        with self._looks.wait(record) as wait:
            while wait.record is not None and not self._looks.closed and self._clock.monotonic() < until:
                answer = await self._shelf.answer(wait.record)
                if answer is not None:
                    return answer
                await wait.next(until - self._clock.monotonic())
        if wait.record is None:
            raise errors.upstream_unavailable(
                "The call that this one repeats was refused; nothing was executed. Send it again.",
                "repeated_call_refused",
                retry_after=1,
            )
        raise errors.outcome_unknown(
            "The call that this one repeats has not ended. Nothing was sent again.", timed_out=True
        )

    def _begin_to_keep(self, call: Recent, answer: Answer, seconds: float) -> asyncio.Task[None]:
        """Until it is done the answer's body must not go."""

        def done(_: asyncio.Task[None]) -> None:
            call.keeping = None

        call.kept = True
        call.keeping = keeping = self._work.start(self._keep(call, answer, seconds))
        keeping.add_done_callback(done)
        return keeping

    def _look_for_slow(self, seconds: float) -> None:
        self._slow_are_due = True
        asyncio.get_running_loop().call_later(seconds, self._keep_slow, context=Context())

    def _keep_slow(self) -> None:
        """Where a client is slow to take its answer, who repeats the call at another process must find it meanwhile."""
        self._slow_are_due = False
        before = asyncio.get_running_loop().time() - SLOW_SECONDS
        waiting = [call for call in self._recent.calls.values() if call.ended_at and not call.kept]
        for call in waiting:
            answer = call.answer.result()
            if call.ended_at <= before and answer.executed:
                self._begin_to_keep(call, answer, self._rules.window)
        if younger := [call.ended_at for call in waiting if call.ended_at > before]:
            self._look_for_slow(min(younger) - before)

    async def _keep(self, call: Recent, answer: Answer, seconds: float) -> None:
        async def kept() -> None:
            async with self._room_to_keep:
                await self._shelf.keep(call.hold_id, answer, seconds)

        await self._work.until_written(kept)
        call.there = True
        if call.replayed:
            self._deliveries.note(call.hold_id)
        self._events.publish(TOPIC, call.hold_id.hex)

    async def _keep_and_drop(self, call: Recent, answer: Answer) -> None:
        try:
            await self._keep(call, answer, self._rules.window)
        finally:
            self._recent.drop(call)

    def _heard(self, event: Event) -> None:
        if self._looks.idle:
            return
        for ident in event.ident.split():
            with suppress(ValueError):
                self._looks.heard(UUID(hex=ident))
