"""A Postgres connection that does not wait for ever.

Postgres ends a statement by its own clock. That says nothing of a server, or a proxy before it, that has gone without a
word: the statement would keep its place in the pool until the process ends, and would not even end when cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

GRACE_SECONDS = 1.0  # beyond the statement's own time-out

Result = TypeVar("Result")


class TimedConnection(psycopg.AsyncConnection[Any]):
    """Hangs up when the server has been silent for longer than a statement may take: an OperationalError, as when
    the connection is cut."""

    statement_seconds = 0.0  # how long a statement may take; none: for ever
    used_at = 0.0  # monotonic

    def may_be_dead(self, idle_seconds: float) -> bool:
        """Whether to ask the server before this connection is relied on: it has been idle for so long, or something
        lies there that nobody asked for, as when the server has closed it."""
        return self.closed or monotonic() - self.used_at >= idle_seconds or _readable(self.fileno())

    async def wait(self, gen: PQGen[Result], *args: Any, **options: Any) -> Result:
        """psycopg's one way of asking the server anything."""
        if not self.statement_seconds:
            return await super().wait(gen, *args, **options)
        watch = _Watch(self, self.statement_seconds + GRACE_SECONDS)
        try:
            return await super().wait(gen, *args, **options)
        finally:
            watch.end()


class _Watch:
    """Looks at a connection after `seconds`; again while an answer lies there unread, for then this process is slow."""

    def __init__(self, connection: TimedConnection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def end(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._connection.closed:
            return
        number = self._connection.fileno()
        if _readable(number):
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)
            return
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as same:
            same.shutdown(socket.SHUT_RDWR)


def _readable(number: int) -> bool:
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))
