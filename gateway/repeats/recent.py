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

MOST_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Recent:
    """One call. `close` frees its answer's body, when nobody reads it any more."""

    answer: asyncio.Future[Answer]
    close: Callable[[], None] | None = None
    readers: int = 0
    written: bool = False  # its client got the answer; until then it must not go
    kept: bool = False  # the answer is put where it lasts
    dropped: bool = False


@dataclass(slots=True)
class RecentCalls:
    """By hold; the oldest answers go first when all of them are too large."""

    calls: dict[UUID, Recent] = field(default_factory=dict)
    bytes: int = 0

    def begin(self, hold_id: UUID) -> None:
        self.calls[hold_id] = Recent(asyncio.get_running_loop().create_future())

    def end(self, hold_id: UUID, answer: Answer, close: Callable[[], None]) -> None:
        """The call has answered; everyone who waits for it here goes on."""
        call = self.calls.get(hold_id)
        if call is None or call.answer.done():
            close()
            return
        call.close = close
        call.answer.set_result(answer)
        self.bytes += _size(answer)
        if self.bytes > MOST_BYTES:  # of a busy process ten thousand calls are here
            self._make_room()

    def _make_room(self) -> None:
        for written in [other for other, one in self.calls.items() if one.written]:
            if self.bytes <= MOST_BYTES:
                break
            self.drop(written)

    def written(self, hold_id: UUID) -> None:
        """The call's own client is done with the answer: it may go when there is no room."""
        if (call := self.calls.get(hold_id)) is not None:
            call.written = True

    def drop(self, hold_id: UUID) -> None:
        """Forgets the call; a body that is being read is freed after that."""
        call = self.calls.pop(hold_id, None)
        if call is None:
            return
        if call.answer.done():
            self.bytes -= _size(call.answer.result())
        else:
            call.answer.set_exception(_interrupted())
            call.answer.exception()  # nobody may be waiting
        call.dropped = True
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
