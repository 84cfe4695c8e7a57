"""Calls of this process that run, or have just answered: who repeats them here need not ask anywhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from gateway import errors
from gateway.errors import GatewayError
from gateway.repeats.answer import Answer
from gateway.spool import SpooledBody

MOST_BYTES = 64 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Recent:
    """One call, repeated `by_key` or by an SDK's retries. `close` frees an answer's body that is on disk, when nobody
    reads it any more; `ended_at` is by the loop's time."""

    hold_id: UUID
    by_key: bool
    answer: asyncio.Future[Answer]
    close: Callable[[], None] | None = None
    ended_at: float = 0.0
    readers: int = 0
    keeping: asyncio.Task[None] | None = None  # it reads the answer's body
    written: bool = False  # its client got the answer; until then it must not go
    kept: bool = False  # the answer is put where other processes find it
    there: bool = False  # it lies there
    replayed: bool = False  # somebody got it before that
    dropped: bool = False


@dataclass(slots=True)
class RecentCalls:
    """By hold; the oldest answers go first when all of them are too large."""

    calls: dict[UUID, Recent] = field(default_factory=dict)
    bytes: int = 0

    def begin(self, hold_id: UUID, *, by_key: bool) -> Recent:
        call = Recent(hold_id, by_key, asyncio.get_running_loop().create_future())
        self.calls[hold_id] = call
        return call

    def end(self, call: Recent, answer: Answer, close: Callable[[], None]) -> None:
        """The call has answered; everyone who waits for it here goes on."""
        if call.dropped or call.answer.done():
            close()
            return
        # A body in memory frees itself: for it nothing else of the call need be kept, of ten thousand calls.
        if not (isinstance(answer.body, SpooledBody) and answer.body.in_memory):
            call.close = close
        call.ended_at = asyncio.get_running_loop().time()
        call.answer.set_result(answer)
        self.bytes += _size(answer)
        if self.bytes > MOST_BYTES:  # of a busy process ten thousand calls are here
            self._make_room()

    def _make_room(self) -> None:
        for written in [call for call in self.calls.values() if call.written]:
            if self.bytes <= MOST_BYTES:
                break
            self.drop(written)

    def drop(self, call: Recent) -> None:
        """Forgets the call; a body that is being read is freed after that."""
        if call.dropped:
            return
        call.dropped = True
        del self.calls[call.hold_id]
        if call.answer.done():
            self.bytes -= _size(call.answer.result())
        else:
            call.answer.set_exception(_interrupted())
            call.answer.exception()  # nobody may be waiting
        _free(call)

    @asynccontextmanager
    async def answer(self, hold_id: UUID) -> AsyncIterator[Answer | None]:
        """The call's answer once it is there, readable within the block; None when this process does not know it."""
        call = self.calls.get(hold_id)
        if call is None:
            yield None
            return
        call.readers += 1
        try:
            yield await asyncio.shield(call.answer)
        finally:
            call.readers -= 1
            _free(call)


def _free(call: Recent) -> None:
    if call.dropped and call.readers == 0 and call.close is not None:
        close, call.close = call.close, None
        close()


def _interrupted() -> GatewayError:
    return errors.outcome_unknown(
        "The gateway had to end before Pixapi answered the call that this one repeats. Nothing was sent again.",
        timed_out=False,
    )


def _size(answer: Answer) -> int:
    return 0 if answer.body is None else answer.body.size
