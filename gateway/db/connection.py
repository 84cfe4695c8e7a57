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
from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.abc import Transformer as Adapting
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

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
            result = await super().wait(gen, *args, **options)
        finally:
            watch.end()
        self.used_at = monotonic()
        return result

    async def rows(self, statement: bytes, arguments: Sequence[object]) -> list[Any]:
        """The rows of one statement, `$1` the first of its arguments, as named tuples. Raises as a cursor's `execute`.

        For who has the connection alone, and for rows that are few: a cursor keeps more than these need, and costs
        more than the statement.
        """
        adapt = Transformer(self)
        result = await self.wait(self._asked(statement, arguments, adapt))
        if result.status == ExecStatus.COMMAND_OK:
            return []
        if result.status != ExecStatus.TUPLES_OK:
            raise error_from_result(result, encoding=adapt.encoding)
        adapt.set_pgresult(result)
        row = _row(tuple([result.fname(column) for column in range(result.nfields)]))
        return adapt.load_rows(0, result.ntuples, row)

    def _asked(self, statement: bytes, arguments: Sequence[object], adapt: Adapting) -> PQGen[PGresult]:
        values = adapt.dump_sequence(arguments, [PyFormat.AUTO] * len(arguments))
        self.pgconn.send_query_params(statement, values, param_types=adapt.types, param_formats=adapt.formats)
        results: list[PGresult] = yield from generators.execute(self.pgconn)
        return results[-1]


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


@cache
def _row(names: tuple[bytes, ...]) -> Callable[[Sequence[Any]], Any]:
    row: Any = namedtuple("Row", [name.decode() for name in names])  # type: ignore[misc]
    made: Callable[[Sequence[Any]], Any] = row._make
    return made


def _readable(number: int) -> bool:
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))
