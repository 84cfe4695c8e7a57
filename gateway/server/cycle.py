"""One request and its answer: the ASGI side of a connection.

The answer's head waits for the first piece of its body, as ASGI has it, and goes out with it in one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Protocol

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.server import ServerState

Header = tuple[bytes, bytes]

JOINED = 64 * 1024  # bytes: a longer piece is not copied to be in one write with the head

# As ASGI has them: what is found by its name here is found by it on the wire.
_IN_NAMES = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_IN_LINES = bytes([9, *range(32, 127), *range(128, 256)])
_BODILESS = (204, 304)
_FAILED = b"Internal Server Error"
logger = logging.getLogger("gateway.server")


class Connection(Protocol):
    """What a cycle asks of the connection it is on."""

    flow: FlowControl
    server_state: ServerState

    def write(self, data: bytes) -> None:
        """Sends to the client."""

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""

    def read_on(self) -> None:
        """More of what the client sends is wanted."""

    def end(self) -> None:
        """This answer is the connection's last."""

    def answered(self) -> None:
        """The answer is written to its last byte."""


class Cycle:
    """The connection gives `take` the body and says by `lose` that its client is gone; the application does the rest.

    `keep_alive` is what the connection wants to do after the answer, until a head has been written that says it.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_continue_wanted",
        "_event",
        "_left",
        "_method",
        "_news",
        "_pieces",
        "_start",
        "_waiting_bytes",
        "body_ended",
        "complete",
        "keep_alive",
        "lost",
        "started",
    )

    def __init__(
        self,
        connection: Connection,
        method: str,
        *,
        keep_alive: bool,
        expects_continue: bool,
        has_body: bool,
    ) -> None:
        self._connection = connection
        self._method = method
        self._continue_wanted = expects_continue
        self.keep_alive = keep_alive
        self.lost = False
        # The request's body
        self.body_ended = not has_body
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._news = self.body_ended  # something to receive
        self._event: asyncio.Event | None = None
        # The answer
        self.started = False  # its head is written
        self.complete = False
        self._start: Message | None = None
        self._chunked = False
        self._left = 0  # bytes of the body that its head has promised

    # From the connection ----------------------------------------------------------------------------------

    def take(self, piece: bytes, *, last: bool) -> None:
        """A piece of the request's body."""
        if self.complete:
            return
        if piece:
            self._pieces.append(piece)
            self._waiting_bytes += len(piece)
            if self._waiting_bytes > HIGH_WATER_LIMIT:
                self._connection.flow.pause_reading()
        self.body_ended = last
        self._tell()

    def lose(self) -> None:
        """The client is gone, or what it sends can no longer be read: nothing more is received or sent."""
        if not self.complete:
            self.lost = True
        self._tell()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """The request, until the application has returned."""
        try:
            await app(scope, self.receive, self.send)
        except BaseException as failure:
            logger.error("a request failed beyond its answer", exc_info=failure)
            self._break_off()
        else:
            if not (self.complete or self.lost):
                logger.error("a request was not answered to its end")
                self._break_off()

    # For the application ----------------------------------------------------------------------------------

    def client_gone(self) -> bool:
        """Whether there is nobody to answer any more."""
        return self.lost or self.complete

    async def receive(self) -> Message:
        """What has come of the body since last time, or that there is nobody to answer any more."""
        if not (self.lost or self.complete):
            if self._continue_wanted and not self._connection.is_closing():
                self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._continue_wanted = False
            if not self._news:
                await self._hear()
            self._news = False
        if self.lost or self.complete:
            return {"type": "http.disconnect"}
        body = b"".join(self._pieces)
        self._pieces, self._waiting_bytes = [], 0
        # Also when this was the last of it: a client is heard to leave only while it is read.
        self._connection.read_on()
        return {"type": "http.request", "body": body, "more_body": not self.body_ended}

    async def send(self, message: Message) -> None:
        """A part of the answer. Waits while the client takes less than is written; nothing is sent to one that is gone.

        Raises RuntimeError for what is no answer: parts out of order, a body that is not as long as its head says.
        """
        if self._connection.flow.write_paused and not self.lost:
            await self._connection.flow.drain()
        if self.lost:
            return
        start = self._start
        if start is None:
            if message["type"] != "http.response.start":
                raise RuntimeError("An answer begins with its head.")
            self._start = message
            self._continue_wanted = False
            return
        if self.complete or message["type"] != "http.response.body":
            raise RuntimeError("The answer has ended, or begun, already.")
        body, more = message.get("body", b""), message.get("more_body", False)
        if self.started:
            self._connection.write(self._framed(body, more))
        else:
            head = self._head(start["status"], start.get("headers", ()))
            piece = self._framed(body, more)
            self.started = True
            if len(piece) <= JOINED:
                self._connection.write(head + piece)
            else:
                self._connection.write(head)
                self._connection.write(piece)
        if not more:
            self._complete()

    # ------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._news = True
        if self._event is not None:
            self._event.set()

    async def _hear(self) -> None:
        """Waits for news. Most requests need no event: theirs are here before they ask."""
        if self._event is None:
            self._event = asyncio.Event()
        self._event.clear()
        await self._event.wait()

    def _head(self, status: int, given: Iterable[Header]) -> bytes:
        headers = [*self._connection.server_state.default_headers, *given]
        named = dict(headers)
        self._chunked, self._left = False, 0
        if b"connection" in named and b"close" in named[b"connection"].lower():
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append((b"connection", b"close"))
        if self._method != "HEAD":
            if b"content-length" in named:
                self._left = int(named[b"content-length"])
            elif status not in _BODILESS:
                self._chunked = True
                if b"transfer-encoding" not in named:
                    headers.append((b"transfer-encoding", b"chunked"))
        head = b"\r\n".join([STATUS_LINES[status], *map(b": ".join, headers), b"", b""])
        # Without what may be in a line its ends are left; a header with a line of its own in it would be one more.
        if (
            head.translate(None, _IN_LINES) != b"\r\n" * (len(headers) + 2)
            or b"".join(named).translate(None, _IN_NAMES)
            or b"" in named
        ):
            raise RuntimeError("The answer has an invalid header.")
        return head

    def _framed(self, body: bytes, more: bool) -> bytes:
        if self._method == "HEAD":
            return b""
        if self._chunked:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return piece if more else piece + b"0\r\n\r\n"
        self._left -= len(body)
        if self._left < 0 or (self._left and not more):
            raise RuntimeError("The answer's body is not as long as its head says.")
        return body

    def _complete(self) -> None:
        self.complete = True
        self._tell()
        if not self.keep_alive:
            self._connection.end()
        self._connection.answered()

    def _break_off(self) -> None:
        """No whole answer will come: says so where nothing has been said yet, and ends the connection."""
        if self.lost or self.complete:
            return
        if self.started:
            self._connection.end()
            return
        self.keep_alive = False
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_FAILED))]
        head = self._head(500, headers)
        self._connection.write(head + self._framed(_FAILED, more=False))
        self.started = True
        self._complete()


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}".encode()


STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}
