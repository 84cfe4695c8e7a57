"""Ends connections whose client takes nothing of its answer any more: what is written for it fills our memory."""

from __future__ import annotations

import asyncio

from gateway.server.arrival import outstanding

LOOKS = 6  # in the time a client has to take something


class Stalled:
    """One connection's. It looks only while more is written than the transport takes at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.seconds = seconds
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._left = 0  # bytes that have not arrived, when last one did
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """More waits in the transport than it likes."""
        self._transport = transport
        self._left, self._since = outstanding(transport), self._loop.time()
        self._look_later()

    def end(self) -> None:
        """The transport takes more again, or is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self.end()
        self._timer = self._loop.call_later(self.seconds / LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._transport is None:
            return
        left, now = outstanding(self._transport), self._loop.time()
        if left < self._left:
            self._left, self._since = left, now
        elif now - self._since >= self.seconds:
            self._transport.abort()
            return
        self._look_later()
