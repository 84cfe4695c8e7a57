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
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a paid call failed", exc_info=task.exception())


class Seat:
    """Room for one paid call. Closed once, by its call when one was started, else by its request."""

    def __init__(self, calls: PaidCalls) -> None:
        self._calls = calls
        self._open = True
        self._given_back = False
        self._callbacks: list[Callable[[], None]] = []

    def start(self, call: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Runs the call as a task of its own; the seat is given back when it ends."""
        task = asyncio.create_task(call)
        self._calls.own(task)
        self._open = False
        task.add_done_callback(lambda _: self._give_back())
        return task

    def close(self) -> None:
        """Gives the seat back unless a call was started in it."""
        if self._open:
            self._open = False
            self._give_back()

    def when_given_back(self, callback: Callable[[], None]) -> None:
        """Calls back when the seat is given back: when its call has ended, not when its client has left.

        At once when that has happened already.
        """
        if self._given_back:
            callback()
        else:
            self._callbacks.append(callback)

    def _give_back(self) -> None:
        self._given_back = True
        self._calls.give_back()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
