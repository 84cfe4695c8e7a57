"""The connection: heads held until they are whole, bodies by their framing, limits, time-outs and our refusals.

What is read here is read once: `head.read_head` judges a head, `bodies` finds the end of a body, `cycle` is the request
as the application sees it. One request runs at a time: what is pipelined behind it waits unread, so a refusal never
overtakes an answer. uvicorn's server knows its connections, ends them and waits for their tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, ClassVar
from urllib.parse import unquote

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from gateway.errors import GatewayError, request_timeout
from gateway.server.arrival import Arrival
from gateway.server.bodies import ChunkedBody, SizedBody
from gateway.server.cycle import Cycle
from gateway.server.deadline import Deadline
from gateway.server.head import MAX_HEAD, Framing, Head, check_unfinished, read_head
from gateway.server.lingering import Lingering
from gateway.server.refusing import answer_to
from gateway.server.stalled import Stalled

# Among its scope's extensions the application finds
ARRIVAL = "gateway.arrival"  # `Arrival.watch`: how it learns that its answer has arrived
CHECKED = "gateway.head"  # that the head's size and framing have been checked
LEAVING = "gateway.leaving"  # `Cycle.client_gone`: whether the client has gone

ENDING_SECONDS = 5.0  # for a client to take some of its answer while the process ends
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class GatewayProtocol(asyncio.Protocol):
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
        if not config.loaded:
            config.load()
        self.loop = _loop or asyncio.get_event_loop()
        self.server_state = server_state
        self.transport: asyncio.Transport
        self.flow: FlowControl
        self.write: Callable[[bytes], None]  # the transport's
        self._app = config.loaded_app
        self._app_state = app_state
        self._keep_alive = config.timeout_keep_alive
        self._context = copy_context()
        self._server: tuple[str, int | None] | None = None
        self._client: tuple[str, int] | None = None
        self._arrival = Arrival(self.loop, self._context)
        self._stalled = Stalled(self.loop, self.stalled_timeout)
        self._deadline = Deadline(self.loop, self._context, self._expired)
        self._lingering: Lingering | None = None
        self._idle = False  # answered everything; what comes next is a new request
        self._cycle: Cycle | None = None
        self._take: Callable[[bytes], bytes] = self._take_head
        self._held = b""  # the beginning of a head, or what came behind a request that still runs
        self._framing = Framing()
        self._body: SizedBody | ChunkedBody = SizedBody(0)
        self._reusable = False  # whether the client lets the connection live after this request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first head."""
        self.server_state.connections.add(self)  # type: ignore[arg-type] # asked for no more than `shutdown`
        self.transport = transport
        self.flow = FlowControl(transport)
        self.write = transport.write
        self._server = get_local_addr(transport)
        self._client = get_remote_addr(transport)
        self._arrival.begin(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; a running request learns of it from its `receive`."""
        self._arrival.end(exc)  # first: the socket is still open
        self._stalled.end()
        self._deadline.stop()
        self.server_state.connections.discard(self)
        if self._cycle is not None:
            self._cycle.lose()
        self.flow.resume_writing()
        if self._lingering is not None:
            self._lingering.stop()
        self._held = b""
        self._take = _swallow
        if exc is None:
            self.transport.close()

    def eof_received(self) -> None:
        """Sends nothing more: most clients have read everything and are closing. The transport closes then."""
        self._arrival.look()

    def data_received(self, data: bytes) -> None:
        """Walk `data` through head and body, as many of them as it holds."""
        self._arrival.look()  # most clients send their next request when they have the answer
        if self._lingering is not None:
            self._lingering.heard = True
            return
        if self._held:
            data, self._held = self._held + data, b""
        while data:
            data = self._take(data)

    # What the next bytes are: each takes some of them and returns the rest --------------------------------

    def _take_head(self, data: bytes) -> bytes:
        data = data.lstrip(b"\r\n")  # some clients end a body with a line end that is not theirs to send
        if self._cycle is not None and not self._cycle.complete:
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
            head = read_head(data[:end])
        except GatewayError as refusal:
            self._refuse(refusal)
            return b""
        self._idle = False
        self._deadline.lift()
        self._begin(head)
        return data[end:]

    def _take_body(self, data: bytes) -> bytes:
        try:
            piece, rest = self._body.take(data)
        except GatewayError as refusal:
            self._refuse(refusal)
            return b""
        cycle, ended = self._cycle, self._body.ended
        if ended:
            self._take = self._take_head if self._reusable else _swallow
        if cycle is not None and (piece or ended):
            if ended and self._reusable and not cycle.started:
                cycle.keep_alive = True  # no answer has said otherwise
            cycle.take(piece, last=ended)
        return rest

    # One request ------------------------------------------------------------------------------------------

    def _begin(self, head: Head) -> None:
        """Start the request. Answered before its body has arrived, it ends the connection and says so."""
        framing = self._framing = head.framing
        self._reusable = not framing.closes
        self._cycle = cycle = Cycle(
            self,
            head.method,
            keep_alive=self._reusable and not framing.has_body,
            expects_continue=framing.expects_continue,
            has_body=framing.has_body,
        )
        if framing.has_body:
            self._body = ChunkedBody() if framing.chunked else SizedBody(framing.length)
            self._take = self._take_body
        elif not self._reusable:
            self._take = _swallow
        task = self.loop.create_task(cycle.run(self._app, self._scope(head, cycle)))
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    def _scope(self, head: Head, cycle: Cycle) -> Scope:
        path = head.path.decode()
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": head.version,
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "root_path": "",
            "headers": head.fields,
            "state": self._app_state.copy(),
            "method": head.method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": head.path,
            "query_string": head.query,
            "extensions": {CHECKED: True, ARRIVAL: self._arrival.watch, LEAVING: cycle.client_gone},
        }

    # What a cycle asks of its connection ------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.transport.is_closing()

    def read_on(self) -> None:
        """More of what the client sends is wanted, unless its next request is here already."""
        if not self._held:
            self.flow.resume_reading()

    def end(self) -> None:
        """This answer is the connection's last: closed by its client, or by time, when it may still be sending.

        Closed at once its kernel would no longer say what has arrived, and with an unread body discard the answer.
        """
        if not self._framing.has_body:
            self._close()
            return
        self._held, self._take = b"", _swallow
        self._linger()

    def answered(self) -> None:
        """Wait for the next request, or go on with one that is already here."""
        self.server_state.total_requests += 1
        if self._lingering is not None or self.transport.is_closing():
            return
        self._idle = True
        self._deadline.set(self._keep_alive)
        self.read_on()
        if self._held:
            # not within the finished request's task: the next one must not inherit its context variables
            self.loop.call_soon(self._go_on, context=self._context)

    def _go_on(self) -> None:
        if self._held and not self.transport.is_closing():
            self.data_received(b"")
            if self._cycle is None or self._cycle.complete:  # no whole head is here: the rest of it is wanted
                self.flow.resume_reading()
            else:
                self.read_on()

    # From the transport and the server --------------------------------------------------------------------

    def pause_writing(self) -> None:
        """More of an answer is written than the client takes."""
        self.flow.pause_writing()
        self._stalled.begin(self.transport)

    def resume_writing(self) -> None:
        """The client has taken it."""
        self.flow.resume_writing()
        self._stalled.end()

    def shutdown(self) -> None:
        """Let a running request end and close then; close at once otherwise."""
        self._reusable = False
        self._stalled.seconds = min(self._stalled.seconds, ENDING_SECONDS)
        if self._cycle is None or self._cycle.complete:
            self._close()
        else:
            self._cycle.keep_alive = False

    # Time-outs and refusals -------------------------------------------------------------------------------

    def _expect_head(self) -> None:
        if self._idle or not self._deadline.running:
            self._idle = False
            self._deadline.set(self.header_timeout)

    def _expired(self) -> None:
        """Nothing came on an idle connection, or not the whole of a head."""
        if self._held:
            self._refuse(request_timeout(f"No whole request head arrived within {self.header_timeout:g} s."))
        self._close()

    def _refuse(self, refusal: GatewayError) -> None:
        """Answer `refusal` and end the connection; only end it where an answer has begun."""
        answer = answer_to(refusal, self._client, self.server_state.default_headers)
        self._deadline.lift()
        self._held, self._take = b"", _swallow
        running = self._cycle if self._cycle is not None and not self._cycle.complete else None
        if running is not None:
            running.lose()
        if running is None or not running.started:
            self.transport.write(answer)
        self._linger()

    def _linger(self) -> None:
        if self._lingering is None and not self.transport.is_closing():
            self.flow.resume_reading()
            self._lingering = Lingering(self.loop, self.transport, self._close)

    def _close(self) -> None:
        """Ends the connection when what is written has gone, or when the client takes nothing of it any more."""
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._stalled.begin(self.transport)


def protocol_class(header_timeout: float, stalled_timeout: float = 30.0) -> type[GatewayProtocol]:
    """The protocol with its time-outs in seconds, for `uvicorn.Config(http=…)`."""

    class Timed(GatewayProtocol):
        pass

    Timed.header_timeout = header_timeout
    Timed.stalled_timeout = stalled_timeout
    return Timed


def _swallow(_data: bytes) -> bytes:
    """Read and forget: nothing more is served on this connection."""
    return b""
