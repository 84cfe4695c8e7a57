"""Closing a connection whose client is still sending, so that it can read its answer.

Closing a socket with unread bytes resets the connection, and a reset discards what the client has not read yet:
it would see a broken pipe in the middle of its upload and never the 401 or 413. So: end our direction, read and
forget for a while, then close (RFC 9112, section 9.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SILENCE_SECONDS = 2.0
TOTAL_SECONDS = 30.0


class Lingering:
    """The end of one connection: the answer is flushed, then the client gets time to stop sending.

    Closes when the client is silent for `SILENCE_SECONDS` or after `TOTAL_SECONDS`. The protocol sets `heard`
    whenever data arrives; when the client closes, the transport does so by itself.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, close: Callable[[], None]
    ) -> None:
        self.heard = False
        self._loop = loop
        self._close = close
        self._deadline = loop.time() + TOTAL_SECONDS
        transport.write_eof()
        self._timer = loop.call_later(SILENCE_SECONDS, self._look)

    def stop(self) -> None:
        """The connection is gone."""
        self._timer.cancel()

    def _look(self) -> None:
        if self.heard and self._loop.time() < self._deadline:
            self.heard = False
            self._timer = self._loop.call_later(SILENCE_SECONDS, self._look)
        else:
            self._close()
