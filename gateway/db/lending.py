"""Connections that calls of functions hand on to each other.

To take one from SQLAlchemy's pool and to give it back takes longer than a short statement. So who has used one leaves
it here for the next, a second at most since it was taken: from then on the pool looks after it again. What lies here
counts as free, and goes back at once when the pool has no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from gateway.db.connection import TimedConnection

MOST = 2
LENT_SECONDS = 1.0


class Lent:
    """A connection out of the pool; `over` when it must go back there."""

    __slots__ = ("driver", "over", "taken", "timer")

    def __init__(self, taken: PoolProxiedConnection) -> None:
        driver = taken.driver_connection
        if not isinstance(driver, TimedConnection):
            raise TypeError(type(driver))
        self.driver = driver
        self.taken = taken
        self.over = False
        self.timer: asyncio.TimerHandle | None = None

    def give_back(self) -> None:
        """To the pool."""
        if self.timer is not None:
            self.timer.cancel()
        self.taken.close()


class Lending:
    """Those of one engine, whose pool has `size` connections; one that has been idle for `idle_seconds` is asked by the
    pool whether it lives."""

    def __init__(self, engine: AsyncEngine, size: int, idle_seconds: float) -> None:
        self._engine = engine
        self._size = size
        self._idle_seconds = idle_seconds
        self._free: list[Lent] = []
        self._asking = 0  # how many ask the pool right now; it may have none for them
        self._closed = False

    @property
    def free(self) -> int:
        """How many lie here: taken from the pool, and in nobody's use."""
        return len(self._free)

    async def take(self) -> Lent:
        """A connection for a call alone. It comes back by `leave`, or by `spoil` when the call has failed.

        Raises what the pool raises when there is none.
        """
        while self._free:
            lent = self._free.pop()
            if not lent.driver.may_be_dead(self._idle_seconds):
                return lent
            lent.give_back()  # the pool asks it, and makes another if need be
        with self.asked():
            lent = Lent(await self._engine.raw_connection())
        lent.timer = asyncio.get_running_loop().call_later(LENT_SECONDS, self._end, lent, context=Context())
        return lent

    def leave(self, lent: Lent) -> None:
        """A call has used it, and its statement has ended."""
        full = len(self._free) >= MOST or self._asking or self._all_taken()
        if lent.over or full or self._closed:
            lent.give_back()
        else:
            self._free.append(lent)

    async def spoil(self, lent: Lent, error: BaseException, *, cut: bool, unsure: bool) -> None:
        """A call has failed with it. `cut`: it is gone, and so are the others, most likely; `unsure`: who knows in the
        middle of what it is."""
        try:
            if cut:
                self.give_all_back()
                await greenlet_spawn(self._engine.pool._invalidate, lent.taken, error)
            elif unsure:
                await greenlet_spawn(lent.taken.invalidate, error)
        finally:
            lent.give_back()

    @contextmanager
    def asked(self) -> Iterator[None]:
        """While somebody asks the pool for a connection, who shall not wait for one that lies here, or comes back."""
        if self._free and self._all_taken():
            self._free.pop(0).give_back()
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1

    def close(self) -> None:
        """From here on none stays."""
        self._closed = True
        self.give_all_back()

    def give_all_back(self) -> None:
        """To the pool, for whatever it does with its own."""
        while self._free:
            self._free.pop().give_back()

    def _all_taken(self) -> bool:
        taken: int = self._engine.pool.checkedout()  # type: ignore[attr-defined]
        return taken >= self._size

    def _end(self, lent: Lent) -> None:
        lent.over = True
        if lent in self._free:
            self._free.remove(lent)
            lent.give_back()
