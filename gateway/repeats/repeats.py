"""No paid call is paid twice because something repeated it.

A call with an Idempotency-Key answers every repeat of it for a day. A call without one is joined by the retries of the
SDK that sent it: while it runs, and as long as its answer was not written out to its client. Which call a repeat
belongs to is decided in Postgres; where its answer lies is said in `shelf`. An answer that is nowhere any more is an
error: the call is never made a second time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from gateway import errors
from gateway.cache.events import Event, Events
from gateway.clock import Clock
from gateway.credits.terms import Repeatable
from gateway.errors import GatewayError
from gateway.repeats.answer import Answer
from gateway.repeats.looks import Looks
from gateway.repeats.recent import RecentCalls
from gateway.repeats.records import Record, Records
from gateway.repeats.shelf import Shelf

log = logging.getLogger("gateway.repeats")

TOPIC = "call"
GRACE_SECONDS = (
    10.0  # after its answer was written out a call can still be joined: the client may have just left
)
TAKEN_SECONDS = 5.0  # who joined in the last moment of that still finds its record, and its file
KEPT_AT_ONCE = 4  # each has its answer in memory meanwhile
STORE_SECONDS = 5.0  # a client waits so long for its answer to be kept
RETRY_SECONDS = 0.5
NOTE_SECONDS = 0.05
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
        self._delivered: list[UUID] = []  # not yet noted
        self._work: set[asyncio.Task[Any]] = set()
        self._looks = Looks(records)
        self._keeping: dict[UUID, asyncio.Task[None]] = {}
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

    def began(self, hold_id: UUID) -> None:
        """A call that can be repeated is being sent."""
        self._recent.begin(hold_id)

    async def keep(self, hold_id: UUID, repeatable: Repeatable, answer: Answer) -> None:
        """Puts the answer of a call with a key where it lasts, before its client gets a byte; waits 5 s at most."""
        if answer.executed and repeatable.idempotency_key is not None:
            keeping = self._begin_to_keep(hold_id, answer, self._rules.retention)
            await asyncio.wait({keeping}, timeout=STORE_SECONDS)

    def ended(self, hold_id: UUID, answer: Answer, close: Callable[[], None]) -> None:
        """The call has answered. `close` frees the answer's body when nobody can ask for it any more."""
        self._recent.end(hold_id, answer, close)
        if not answer.executed:  # of the others other processes hear when the answer lies where they find it
            self._events.publish(TOPIC, hold_id.hex)
        asyncio.get_running_loop().call_later(SLOW_SECONDS, self._keep_slow, hold_id)

    def written(self, hold_id: UUID, repeatable: Repeatable, answer: Answer, *, delivered: bool) -> None:
        """Its client got the answer in full, or had left before."""
        if hold_id not in self._recent.calls:  # the process is ending
            return
        keeping = self._keeping.get(hold_id)
        if keeping is not None:  # it still reads the answer's body
            keeping.add_done_callback(lambda _: self._recent.drop(hold_id))
        elif not answer.executed or repeatable.idempotency_key is not None:
            self._recent.drop(hold_id)
        elif delivered:
            self._recent.calls[hold_id].kept = True
            self._own(self._share(hold_id, answer))
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self._recent.drop, hold_id)
        else:
            self._recent.calls[hold_id].kept = True
            self._own(self._keep_and_drop(hold_id, answer))

    def gave_up(self, hold_id: UUID) -> None:
        """The call ends without an answer, because the process does."""
        self._recent.drop(hold_id)

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
        """A repeat got the answer in full."""
        if repeatable.idempotency_key is None:
            self._note_delivered(record.hold_id)

    # Beside --------------------------------------------------------------------------------------------------

    async def clear(self) -> None:
        """Forgets what has expired."""
        await self._shelf.clear(await self._records.clear())

    async def close(self, seconds: float = 2.0) -> None:
        """Lets what is being written down end; who still waits is told that it is not known."""
        await self._looks.close()
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self._write_delivered()
        while self._work and (left := until - loop.time()) > 0:
            await asyncio.wait(self._work, timeout=left)
            self._write_delivered()  # what was being shared is delivered now
        for task in self._work:
            task.cancel()
        for hold_id in list(self._recent.calls):
            self._recent.drop(hold_id)

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

    def _begin_to_keep(self, hold_id: UUID, answer: Answer, seconds: float) -> asyncio.Task[None]:
        """Until it is done the answer's body must not go."""
        keeping = self._own(self._keep(hold_id, answer, seconds))
        self._keeping[hold_id] = keeping
        keeping.add_done_callback(lambda _: self._keeping.pop(hold_id, None))
        self._recent.calls[hold_id].kept = True
        return keeping

    def _keep_slow(self, hold_id: UUID) -> None:
        """Its client is slow to take the answer: who repeats the call at another process must find it meanwhile."""
        call = self._recent.calls.get(hold_id)
        if call is None or call.written or call.kept or not call.answer.done():
            return
        if (answer := call.answer.result()).executed:
            self._begin_to_keep(hold_id, answer, self._rules.window)

    async def _keep(self, hold_id: UUID, answer: Answer, seconds: float) -> None:
        async def kept() -> None:
            async with self._room_to_keep:
                await self._shelf.keep(hold_id, answer, seconds)

        await self._until_written(kept)
        self._events.publish(TOPIC, hold_id.hex)

    async def _keep_and_drop(self, hold_id: UUID, answer: Answer) -> None:
        try:
            await self._keep(hold_id, answer, self._rules.window)
        finally:
            self._recent.drop(hold_id)

    async def _share(self, hold_id: UUID, answer: Answer) -> None:
        """Before the record says that it was delivered: who joins elsewhere looks for it then. And before the answer
        may go from here, since its body is read for this; a large one goes then, and frees its share of the spool."""
        filed = False
        async with self._recent.answer(hold_id) as recent:
            if recent is not None:
                with suppress(GatewayError):
                    filed = await self._shelf.share(hold_id, answer, GRACE_SECONDS + TAKEN_SECONDS)
        self._recent.written(hold_id)
        if filed:
            self._recent.drop(hold_id)
        self._note_delivered(hold_id)
        self._events.publish(TOPIC, hold_id.hex)

    def _note_delivered(self, hold_id: UUID) -> None:
        """Nobody waits for it, and a call that is joined a moment too long costs nothing: many are noted at once."""
        self._delivered.append(hold_id)
        if len(self._delivered) == 1:
            asyncio.get_running_loop().call_later(NOTE_SECONDS, self._write_delivered, context=Context())

    def _write_delivered(self) -> None:
        hold_ids, self._delivered = self._delivered, []

        async def noted() -> None:
            await self._records.delivered(hold_ids, GRACE_SECONDS + TAKEN_SECONDS)

        if hold_ids:
            self._own(self._until_written(noted))

    async def _until_written(self, verb: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await verb()
            except GatewayError as error:
                log.warning("a call's answer is not kept yet", extra={"reason": error.reason})
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._finish)
        return task

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a call's answer could not be kept", exc_info=task.exception())

    def _heard(self, event: Event) -> None:
        try:
            hold_id = UUID(hex=event.ident)
        except ValueError:
            return
        self._looks.heard(hold_id)
