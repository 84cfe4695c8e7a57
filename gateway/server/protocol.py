"""The connection: uvicorn's protocol with heads held until they are whole, limits, time-outs and our refusals.

uvicorn's `HttpToolsProtocol` keeps everything behind the head: ASGI, flow control, keep-alive. In front of its
parser stands this: a head is collected, judged by `head.read_head` and given to the parser in one piece; the
body's end is known, so every head of a connection is held. One request runs at a time: what is pipelined behind
it waits unread, so a refusal never overtakes an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, ClassVar

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.errors import GatewayError, broken_framing, render, request_timeout
from gateway.ids import uuid7
from gateway.server.arrival import Arrival
from gateway.server.chunks import ChunkedBody
from gateway.server.head import MAX_HEAD, Head, check_unfinished, read_head
from gateway.server.lingering import Lingering, UnreadBodyTransport
from gateway.server.stalled import Stalled

# Where the application finds `Arrival.watch` among its scope's extensions: how it learns that its answer has arrived.
ARRIVAL = "gateway.arrival"

ENDING_SECONDS = 5.0  # for a client to take some of its answer while the process ends
access_log = logging.getLogger("gateway.access")


class GatewayProtocol(HttpToolsProtocol):
    """One client connection. Time-outs are in seconds; `protocol_class` makes a class with others."""

    header_timeout: ClassVar[float] = 10.0
    stalled_timeout: ClassVar[float] = 30.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._take: Callable[[bytes], bytes] = self._take_head
        self._held = b""  # the beginning of a head, or what came behind a request that still runs
        self._head = Head(b"", 0, False)
        self._body_left = 0
        self._chunks = ChunkedBody()
        self._message_ended = True
        self._reusable = False  # whether the client lets the connection live after this request
        self._head_timer: asyncio.TimerHandle | None = None
        self._lingering: Lingering | None = None
        self._context = copy_context()
        self._arrival = Arrival(self.loop, self._context)
        self._stalled = Stalled(self.loop, self.stalled_timeout)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first head."""
        super().connection_made(transport)
        self._arrival.begin(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; a running request learns of it from its `receive`."""
        self._arrival.end(exc)  # first: the socket is still open
        self._stalled.end()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._head_arrived()
        if self._lingering is not None:
            self._lingering.stop()
        self._held = b""
        self._take = _swallow

    def eof_received(self) -> None:
        """Sends nothing more: most clients have read everything and are closing. The transport closes then."""
        self._arrival.look()

    def data_received(self, data: bytes) -> None:
        """Walk `data` through head and body, as many of them as it holds."""
        self._arrival.look()  # most clients send their next request when they have the answer
        if self._lingering is not None:
            self._lingering.heard = True
            return
        self._unset_keepalive_if_required()
        if self._held:
            data, self._held = self._held + data, b""
        while data:
            data = self._take(data)

    # What the next bytes are: each takes some of them and returns the rest --------------------------------

    def _take_head(self, data: bytes) -> bytes:
        data = data.lstrip(b"\r\n")  # some clients end a body with a line end that is not theirs to send
        if self.cycle is not None and not self.cycle.response_complete:
            if data:
                self._held = data
                self.flow.pause_reading()
            return b""
        if not data:
            self._expect_head()
            return b""
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
        try:
            if end < 4:
                check_unfinished(data)
                self._held = data
                self._expect_head()
                return b""
            self._head = read_head(data[:end])
        except GatewayError as refusal:
            self._refuse(refusal)
            return b""
        self._head_arrived()
        self._start_message()
        return data[end:]

    def _take_sized_body(self, data: bytes) -> bytes:
        piece = data if len(data) <= self._body_left else data[: self._body_left]
        self._body_left -= len(piece)
        if self._feed(piece) and not self._body_left:
            self._end_message()
        return data[len(piece) :]

    def _take_chunks(self, data: bytes) -> bytes:
        try:
            piece, rest = self._chunks.take(data)
        except GatewayError as refusal:
            self._refuse(refusal)
            return b""
        if self._feed(piece) and self._chunks.ended:
            self._end_message()
        return rest

    # One message ------------------------------------------------------------------------------------------

    def _start_message(self) -> None:
        self._message_ended = False
        if not self._feed(self._head.data):
            return
        if not self._head.has_body:
            self._end_message()
        elif self._head.chunked:
            self._chunks = ChunkedBody()
            self._take = self._take_chunks
        else:
            self._body_left = self._head.length
            self._take = self._take_sized_body

    def on_headers_complete(self) -> None:
        """Start the request. Answered before its body has arrived, it ends the connection and says so."""
        self.scope["extensions"] = {ARRIVAL: self._arrival.watch}  # type: ignore[dict-item] # one of our own
        super().on_headers_complete()
        self._reusable = self.cycle.keep_alive
        if self._head.has_body:
            self.cycle.keep_alive = False
            self.cycle.transport = UnreadBodyTransport(self.transport, self._close_after_answer)

    def on_body(self, body: bytes) -> None:
        """Some of the body has arrived; a single piece is handed on as it is."""
        cycle = self.cycle
        if cycle.response_complete:
            return
        held: bytes | bytearray = cycle.body
        if held:
            cycle.body = bytearray(held) if isinstance(held, bytes) else held
            cycle.body += body
        else:
            cycle.body = body  # type: ignore[assignment] # which the cycle makes bytes of: nothing is copied
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The body has arrived: the connection may live on, if no answer has said otherwise."""
        self._message_ended = True
        if self._reusable and not self.cycle.response_started:
            self.cycle.keep_alive = True
        super().on_message_complete()

    def _end_message(self) -> None:
        if not self._message_ended:  # our framing and the parser's differ: trust neither
            self._refuse(broken_framing("The end of the request cannot be told."))
        else:
            self._take = self._take_head if self._reusable else _swallow

    def on_response_complete(self) -> None:
        """Wait for the next request, or go on with one that is already here."""
        if self._lingering is not None:
            self.server_state.total_requests += 1
            return
        super().on_response_complete()
        if self._held and not self.transport.is_closing():
            # not within the finished request's task: the next one must not inherit its context variables
            self.loop.call_soon(self._go_on, context=self._context)

    def _go_on(self) -> None:
        if self._held:
            self.data_received(b"")

    def pause_writing(self) -> None:
        """More of an answer is written than the client takes."""
        super().pause_writing()
        self._stalled.begin(self.transport)

    def resume_writing(self) -> None:
        """The client has taken it."""
        super().resume_writing()
        self._stalled.end()

    def shutdown(self) -> None:
        """Let a running request end and close then; close at once otherwise."""
        self._reusable = False
        self._stalled.seconds = min(self._stalled.seconds, ENDING_SECONDS)
        super().shutdown()

    def _feed(self, data: bytes) -> bool:
        """Give `data` to the parser. False: it was refused and the connection is ending."""
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as failure:
            self.logger.debug("the parser refused a request: %s", failure, exc_info=failure.__context__)
            self._refuse(broken_framing("The request is malformed."))
            return False
        return True

    # Time-outs and refusals -------------------------------------------------------------------------------

    def _expect_head(self) -> None:
        if self._head_timer is None and self.timeout_keep_alive_task is None:
            self._head_timer = self.loop.call_later(self.header_timeout, self._head_expired)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_expired(self) -> None:
        self._head_timer = None
        if self._held:
            self._refuse(request_timeout(f"No whole request head arrived within {self.header_timeout:g} s."))
        self.transport.close()

    def _refuse(self, refusal: GatewayError) -> None:
        """Answer `refusal` and end the connection; only end it where an answer has begun."""
        request_id = f"req_{uuid7().hex}"
        self._record(refusal, request_id)
        self._head_arrived()
        self._held, self._take = b"", _swallow
        running = self.cycle is not None and not self.cycle.response_complete
        if running:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not (running and self.cycle.response_started):
            self.transport.write(_rendered(refusal, request_id, self.server_state.default_headers))
        self._linger()

    def _record(self, refusal: GatewayError, request_id: str) -> None:
        """A line like any request's, as far as anything is known of this one."""
        access_log.info(
            "request",
            extra={
                "request_id": request_id,
                "status": refusal.status,
                "reason": refusal.reason,
                "client": self.client[0] if self.client else None,
            },
        )

    def _close_after_answer(self) -> None:
        """End the connection for a request that has been answered: its client closes it, or time does.

        Closed at once its kernel would no longer say what has arrived, and with an unread body discard the answer.
        """
        self._held, self._take = b"", _swallow
        self._linger()

    def _linger(self) -> None:
        if self._lingering is None and not self.transport.is_closing():
            self.flow.resume_reading()
            self._lingering = Lingering(self.loop, self.transport)


def protocol_class(header_timeout: float, stalled_timeout: float = 30.0) -> type[GatewayProtocol]:
    """The protocol with its time-outs in seconds, for `uvicorn.Config(http=…)`."""

    class Timed(GatewayProtocol):
        pass

    Timed.header_timeout = header_timeout
    Timed.stalled_timeout = stalled_timeout
    return Timed


def _rendered(refusal: GatewayError, request_id: str, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    headers, body = render(refusal, request_id)
    lines = [STATUS_LINE[refusal.status]]
    for name, value in [*default_headers, *headers, (b"x-request-id", request_id.encode())]:
        lines += [name, b": ", value, b"\r\n"]
    return b"".join([*lines, b"\r\n", body])


def _swallow(_data: bytes) -> bytes:
    """Read and forget: nothing more is served on this connection."""
    return b""
