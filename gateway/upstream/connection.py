"""One HTTP/1.1 connection that asks: a request goes out, its reply comes back in pieces, then the next request.

Who asks waits for at most one thing at a time: room to write, the head of the reply, or a piece of its body. So there
is one future to wake, and no task besides the caller's. What goes wrong is a `ConnectionError`.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from gateway.spool import PIECE

Header = tuple[bytes, bytes]

# Of bytes that bring no body: a head, its interim replies, trailers, the extensions of chunks.
LARGEST_HEAD = 64 * 1024
# Of a reply that nobody has taken yet; beyond it the other side has to wait.
HIGH_WATER = 2 * PIECE


class Connection(asyncio.Protocol):
    """`ended` is told when the connection is no more. `closed` as soon as it is known to take no further request."""

    def __init__(self, ended: Callable[[Connection], None]) -> None:
        self.closed = False
        self.idle_since = 0.0
        self.status = 0  # of the reply, as soon as its head is here
        self.headers: list[Header] = []
        self.heard = False  # a byte of the reply
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._unread = select.poll()
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: deque[bytes] = deque()
        self._held = 0  # bytes in them
        self._dry = 0  # bytes since the last one of a body
        self._asking = False  # a request went out, and its reply was not taken to the end
        self._sent_whole = False
        self._complete = True  # the reply
        self._may_go_on = False  # by what the reply says of the connection
        self._write_paused = self._read_paused = False
        self._error: ConnectionError | None = None

    # A request --------------------------------------------------------------------------------------------

    def is_fresh(self) -> bool:
        """Whether nothing has come since the last reply, not even an end that the loop has not read yet."""
        return not (self.closed or self._transport.is_closing() or self._unread.poll(0))

    def ask(self, data: bytes, *, whole: bool) -> None:
        """Sends the beginning of a request, or a `whole` one. From here on bytes may have left."""
        self.status, self.headers, self.heard = 0, [], False
        self._dry = 0
        self._asking, self._sent_whole = True, whole
        self._complete = self._may_go_on = False
        self._transport.write(data)

    async def more(self, data: bytes) -> bool:
        """Sends more of the request when there is room; false when it is of no use, as the reply is here already."""
        while self._write_paused and not (self.status or self._error):
            await self._change()
        if self._error is not None and not self.status:
            raise self._error
        if self.status:
            return False
        self._transport.write(data)
        return True

    def sent(self) -> None:
        """The request is whole."""
        self._sent_whole = not self.status  # a reply that came before was not to all of it

    async def head(self) -> None:
        """Waits for `status` and `headers` of the reply; interim ones are passed over."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._change()

    def whole(self) -> bytes | None:
        """The whole body of a small reply that is here already, as most are with their head; it is taken then."""
        if not self._complete or self._read_paused:
            return None
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        return body

    async def piece(self) -> bytes:
        """The next bytes of the reply's body; none at its end."""
        while not self._pieces:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._change()
        piece = self._pieces.popleft()
        self._held -= len(piece)
        if self._read_paused and self._held <= HIGH_WATER // 2 and not self._transport.is_closing():
            self._read_paused = False
            self._transport.resume_reading()
        return piece

    def done(self) -> bool:
        """The reply is not read any further. Whether the connection can take another request; else it is aborted."""
        self._asking = False
        taken = self._complete and not self._pieces
        may_go_on = taken and self._sent_whole and self._may_go_on and not self.closed
        if may_go_on and self._transport.get_write_buffer_size() == 0:
            return True
        self.abort()
        return False

    def close(self) -> None:
        """Ends it in good manners, by TLS with a farewell."""
        self.closed = True
        self._transport.close()

    def abort(self) -> None:
        """Ends it at once."""
        self.closed = True
        self._transport.abort()

    def _change(self) -> asyncio.Future[None]:
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What the transport says ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        self._unread.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if not self._asking:
            self.abort()  # nobody asked
            return
        self.heard = True
        self._dry += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(ConnectionError("what came is not HTTP"))
            return
        if self._dry > LARGEST_HEAD and not self._complete:
            self._fail(ConnectionError("a head is too large"))
            return
        self._wake()

    def eof_received(self) -> None:
        self.closed = True
        if self.status and not _has_end(self.headers):
            self._complete = True
        self._fail(ConnectionError("the other side closed"))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._fail(ConnectionError("the connection was lost"))
        del self._parser  # it holds the connection in turn
        self._ended(self)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake()

    def _fail(self, error: ConnectionError) -> None:
        """The connection is of no more use; a reply that is complete stays so."""
        self._may_go_on = False
        self._error = self._error or error
        if not self.closed:
            self.abort()
        self._wake()

    # What the parser says; after the reply's end it is of another one, which nobody asked for ----------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._may_go_on = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else a trailer
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.status:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self.headers.clear()
            return
        self.status = status
        self._may_go_on = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"

    def on_body(self, piece: bytes) -> None:
        if self._complete:
            return
        self._dry = 0
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > HIGH_WATER and not (self._read_paused or self._transport.is_closing()):
            self._read_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status:
            self._complete = True


def _has_end(headers: list[Header]) -> bool:
    """Whether the head says where its body ends; else that is where the connection does."""
    return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)
