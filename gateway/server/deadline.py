"""How long a connection may wait for its client: one timer, moved without being made anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context


class Deadline:
    """Calls `expired` when the seconds that were last set are over and have not been lifted.

    A busy connection sets and lifts with every request. A timer that runs already is left to find, when it fires, that
    there is more time or nothing to wait for.
    """

    __slots__ = ("_at", "_context", "_expired", "_fires_at", "_loop", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: Context, expired: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._context = context
        self._expired = expired
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = 0.0

    @property
    def running(self) -> bool:
        """Whether there is one."""
        return self._at is not None

    def set(self, seconds: float) -> None:
        """From now on, instead of any other."""
        self._at = self._loop.time() + seconds
        if self._timer is None or self._at < self._fires_at:
            self.stop()
            self._start(self._at)

    def lift(self) -> None:
        """What was waited for has come."""
        self._at = None

    def stop(self) -> None:
        """Lets the timer go: the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, at: float) -> None:
        self._fires_at = at
        self._timer = self._loop.call_at(at, self._fire, context=self._context)

    def _fire(self) -> None:
        self._timer = None
        if self._at is None:
            return
        if self._loop.time() < self._at:
            self._start(self._at)
        else:
            self._at = None
            self._expired()
