"""Commands of one turn of the event loop in one write on one connection, each with its own time to be answered.

There is one connection that takes new commands, made when the first one comes. One on which a command got no answer in
time is retired: it serves those that still wait on it and closes; the next command makes a new one. So there are rarely
more than two. Nothing here is ever repeated, and nothing decides whether Redis is to be asked at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from typing import Any, Protocol

from gateway.cache.address import Address
from gateway.cache.line import Asked, CacheGone, Line, Reply
from gateway.cache.wire import ReplyError

# A timer that rings this late says that our own loop stood still: what Redis sent meanwhile is read first.
LATE_SECONDS = 0.01
GRACE_SECONDS = 0.02
COARSE_SECONDS = 0.005
# A server that answers such a word has lost its role or its data: another connection may reach its successor.
FAILOVER_WORDS = ("READONLY", "LOADING", "MASTERDOWN")
FAILOVER_SECONDS = 1.0  # between two connections given up for that


class Observer(Protocol):
    """Who is told how Redis does."""

    def answered(self) -> None:
        """A reply came in time."""

    def refused(self, text: str) -> None:
        """What an error reply says."""

    def failed(self, kind: str, detail: str, times: int) -> None:
        """`timeout`, `connect` or `lost`; `times` is 1, or how many commands waited their time in vain."""


class Pipeline:
    """Sends commands to `address`; time-outs in seconds."""

    def __init__(
        self, address: Address, observer: Observer, *, connect_timeout: float, timeout: float
    ) -> None:
        self._address = address
        self._observer = observer
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._unsent: list[Asked] = []  # oldest first
        self._line: Line | None = None
        self._retired: list[Line] = []
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._renewed_at = float("-inf")

    def ask(self, packed: bytes, replies: int = 1) -> Reply:
        """The future of the reply (error replies too), or of CacheGone. It may be cancelled; the command is not.

        Of several commands it is the last one's, or the first error.
        """
        loop = asyncio.get_running_loop()
        asked = Asked(packed, loop.create_future(), loop.time() + self._timeout, replies)
        if not self._unsent:
            loop.call_soon(self._flush)
        self._unsent.append(asked)
        if self._timer is None:
            self._timer = loop.call_at(asked.deadline, self._judge, asked.deadline)
        return asked.reply

    def drop_all(self, why: str) -> None:
        """Closes every connection; who still waits gets CacheGone now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        left, self._unsent = self._unsent, []
        for line in self._lines():
            left += line.close()
        self._line, self._retired = None, []
        _fail(left, why)

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._lines())

    def _lines(self) -> list[Line]:
        return self._retired if self._line is None else [*self._retired, self._line]

    def _flush(self) -> None:
        if self._line is not None:
            batch, self._unsent = self._unsent, []
            self._line.send(batch)
        elif self._unsent and self._connecting is None:
            # A context of its own: a connection belongs to no request.
            self._connecting = asyncio.create_task(self._connect(), context=Context())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        line, started = Line(self._answered, self._lost), loop.time()
        try:
            await line.open(self._address, self._connect_timeout)
        except OSError as error:
            self._connecting = None
            batch, self._unsent = self._unsent, []
            _fail(batch, "no connection to Redis")
            # With a loop that stood still, nobody can say whose time it was.
            late = loop.time() - started > self._connect_timeout + LATE_SECONDS
            waited = isinstance(error, TimeoutError) and not late
            detail = str(error) or f"no connection within {self._connect_timeout:g} s"
            self._observer.failed("connect", detail, len(batch) if waited else 1)
        else:
            self._connecting = None
            self._line = line
            self._flush()

    def _answered(self, line: Line, reply: Any) -> None:
        self._observer.answered()
        if type(reply) is ReplyError:
            self._refused(line, str(reply))

    def _refused(self, line: Line, text: str) -> None:
        self._observer.refused(text)
        if any(word in text for word in FAILOVER_WORDS):
            now = asyncio.get_running_loop().time()
            if now - self._renewed_at >= FAILOVER_SECONDS:
                self._renewed_at = now
                self._retire(line)

    def _lost(self, line: Line) -> None:
        """The connection broke. One that was idle was merely closed by the server."""
        if line is self._line:
            self._line = None
        elif line in self._retired:
            self._retired.remove(line)
        if left := line.close():
            _fail(left, "the connection to Redis broke")
            self._observer.failed("lost", "the connection broke", 1)

    def _retire(self, line: Line) -> None:
        if line is self._line:
            self._line = None
            self._retired.append(line)
        line.retire()

    def _judge(self, due: float, *, patient: bool = False) -> None:
        """Fails what is overdue, and rings again for what comes next."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - due > LATE_SECONDS and not patient:
            self._timer = loop.call_later(GRACE_SECONDS, lambda: self._judge(due, patient=True))
            return
        self._timer = None
        failed = 0
        for line in self._lines():
            if overdue := line.overdue(now):
                failed += _fail(overdue, "no answer in time")
                self._retire(line)
        unsent = [asked for asked in self._unsent if asked.deadline <= now]
        del self._unsent[: len(unsent)]
        failed += _fail(unsent, "no connection in time")
        self._retired = [line for line in self._retired if not line.close_if_done()]
        self._wind(loop, now)
        if failed:
            self._observer.failed("timeout", f"no answer within {self._timeout:g} s", failed)

    def _wind(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        deadlines = [line.next_deadline for line in self._lines()]
        deadlines += [asked.deadline for asked in self._unsent[:1]]
        coming = [deadline for deadline in deadlines if deadline is not None]
        if coming:
            due = max(min(coming), now + COARSE_SECONDS)
            self._timer = loop.call_at(due, self._judge, due)


def _fail(commands: Sequence[Asked], why: str) -> int:
    for asked in commands:
        asked.fail(CacheGone(why))
    return len(commands)
