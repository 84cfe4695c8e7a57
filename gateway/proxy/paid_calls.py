"""Paid calls under way in this process: how many may be, and that each outlives its client.

A call is a task owned here, not by the request that asked for it. When the client leaves, the request's wait ends
and the call runs on, answers its hold and keeps its answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway import errors

log = logging.getLogger("gateway.paid_calls")
Result = TypeVar("Result")
GIVE_UP_SECONDS = 2.0


class PaidCalls:
    """`limit` is the number of paid calls this process has under way at most."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seats = 0
        self._shut = False
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def under_way(self) -> int:
        return self._seats

    def shut(self) -> None:
        """No new paid calls from here on."""
        self._shut = True

    def check_room(self) -> None:
        """Raises GatewayError 503 `overloaded` when every seat is taken: asked before a body is read."""
        if self._shut:
            raise errors.overloaded(
                "This gateway process is ending and takes no new paid calls. Nothing was sent; try again."
            )
        if self._seats >= self._limit:
            raise errors.overloaded(
                f"This gateway process has {self._limit} paid calls under way, as many as it may. "
                "Nothing was sent; try again in a moment."
            )

    def take_seat(self) -> Seat:
        """A seat for one call, or the same error. Give it back, or start the call in it."""
        self.check_room()
        self._seats += 1
        return Seat(self)

    async def ended(self) -> None:
        """Waits until no paid call is under way, neither sent nor about to be."""
        while self._seats:
            await asyncio.wait(self._running, timeout=0.2) if self._running else await asyncio.sleep(0.05)

    async def give_up(self) -> int:
        """Cancels the calls under way, which defer their holds; returns how many there were."""
        late = list(self._running)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=GIVE_UP_SECONDS)
        return len(late)

    def give_back(self) -> None:
        self._seats -= 1

    def own(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)

    def disown(self, task: asyncio.Task[Any]) -> None:
        """The call has ended."""
        self._running.discard(task)
        self._seats -= 1
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("a paid call failed", exc_info=failure)


class Seat:
    """Room for one paid call. Given back once, by its call when one was started, else by its request.

    `free`, if set, gives back what the call has taken elsewhere, when it has ended; whoever waits for the call waits
    until the future that it answers is done too.
    """

    __slots__ = ("_calls", "_open", "_over", "free", "started")

    def __init__(self, calls: PaidCalls) -> None:
        self._calls = calls
        self.free: Callable[[], asyncio.Future[Any] | None] | None = None
        self._open = True
        self._over: asyncio.Future[None] | None = None
        self.started = False

    def start(self, call: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Runs the call as a task of its own; the seat is given back when it ends."""
        self._open, self.started = False, True
        self._over = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(call)
        self._calls.own(task)
        task.add_done_callback(self._ended)
        return task

    async def over(self) -> None:
        """Returns when the call has ended and everything it had taken is free. Who waits may be cancelled: the call
        runs on."""
        if self._over is not None:
            await self._over

    def close(self) -> None:
        """Gives the seat back unless a call was started in it."""
        if self._open:
            self._open = False
            self._calls.give_back()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.disown(task)
        freeing = None if self.free is None else self.free()
        if freeing is None:
            self._tell()
        else:
            freeing.add_done_callback(self._tell)

    def _tell(self, _freed: object = None) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
