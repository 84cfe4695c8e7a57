"""Whether what was written to a connection has arrived at the client's machine, asked of the kernel.

A network that died and a client that no longer reads take an answer without a word: it lies in the transport's buffer
or in the kernel's send queue. Only what the client's machine has acknowledged has left both.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from contextvars import Context

FIRST_DELAY_SECONDS = 0.005
LONGEST_DELAY_SECONDS = 0.5
PATIENCE_SECONDS = 5.0  # without anything arriving

_UNSUPPORTED = (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP)


class Arrival:
    """One connection's. Its timers run only while somebody watches; the protocol tells it what it learns earlier."""

    __slots__ = (
        "_context",
        "_delay",
        "_gone",
        "_left",
        "_loop",
        "_next",
        "_transport",
        "_until",
        "_watchers",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._loop = loop
        # The connection's: who is told must not go on in that of a request that has ended.
        self._context = context
        self._transport: asyncio.Transport | None = None
        self._gone = False
        self._watchers: list[Callable[[bool], None]] = []
        self._left = 0
        self._until = 0.0
        self._next: asyncio.Handle | None = None
        self._delay = 0.0

    def begin(self, transport: asyncio.Transport) -> None:
        """The connection is there."""
        self._transport = transport

    def watch(self, told: Callable[[bool], None]) -> None:
        """Calls `told` once: True when all that has been written by now has arrived.

        False when the connection ends before that, or when nothing arrives for `PATIENCE_SECONDS`. What is written
        meanwhile is waited for as well.
        """
        if self._gone:
            told(False)
            return
        self._watchers.append(told)
        self._until = self._loop.time() + PATIENCE_SECONDS
        if self._next is not None:
            self._next.cancel()
        self._delay = FIRST_DELAY_SECONDS
        # Not now: the transport writes at the end of the loop's turn.
        self._next = self._loop.call_soon(self._look_again, context=self._context)

    def look(self) -> None:
        """The client has just been heard of, and with it its latest acknowledgement."""
        if self._watchers and not self._outstanding():
            self._tell(True)

    def end(self, failure: Exception | None) -> None:
        """The connection ends; in order, unless there is a `failure`."""
        if self._gone:
            return
        arrived = bool(self._watchers) and failure is None and not self._outstanding()
        self._gone = True
        self._tell(arrived)

    def _look_again(self) -> None:
        self._next = None
        left, now = self._outstanding(), self._loop.time()
        if not left:
            self._tell(True)
            return
        if left < self._left:
            self._until = now + PATIENCE_SECONDS
        elif now >= self._until:
            self._tell(False)
            return
        self._left = left
        self._next = self._loop.call_later(self._delay, self._look_again, context=self._context)
        self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)

    def _tell(self, arrived: bool) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        watchers, self._watchers = self._watchers, []
        for told in watchers:
            told(arrived)

    def _outstanding(self) -> int:
        return 1 if self._transport is None else outstanding(self._transport)


def outstanding(transport: asyncio.Transport) -> int:
    """The bytes written to a connection that have not arrived."""
    return transport.get_write_buffer_size() + unacknowledged(transport.get_extra_info("socket"))


def unacknowledged(connection: socket.socket) -> int:
    """The bytes that the kernel has not sent yet or whose arrival it does not know; 0 where it cannot say.

    Not 0 for a socket that is closed.
    """
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError as failure:
        return 0 if failure.errno in _UNSUPPORTED else 1
    except ValueError:  # what fileno() of a closed one says
        return 1
    return int.from_bytes(answer, sys.byteorder)
