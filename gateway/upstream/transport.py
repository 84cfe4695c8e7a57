"""HTTP/1.1 to one origin as a transport of httpx: connections that are kept for a while, and calls on them.

A request's body goes out as it is, so its length must be among the headers, which httpx's transports are given whole
(`Host` too). Replies are not decoded, redirects not followed, and there are no cookies.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable, Container
from contextlib import suppress

import httpx

from gateway.upstream.addresses import Place
from gateway.upstream.connection import Connection
from gateway.upstream.dialing import FAREWELL_SECONDS, Dialer, Proxy, ProxyFailedError

# Shorter than what common servers and load balancers keep idle connections for, so that a paid call does not meet a
# connection that is being closed.
KEEP_ALIVE_SECONDS = 4.0
# Of a request: set before a byte of it is handed over to the system, so without it certainly none has left.
SENT = "sent"

_CONTROL = bytes({*range(32), 127} - {ord("\t")})


class Transport(httpx.AsyncBaseTransport):
    """Every request goes to `origin`, whatever host its address names; of `proxy` user and password count too.

    `check` is shown the addresses that names stand for and may raise OSError. Of a reply's headers only those `heeded`
    are told, by their names in small letters. The extension `timeout` of a request may hold seconds for `connect`;
    whoever waits bounds the rest. Made within a running loop.
    """

    def __init__(
        self,
        origin: httpx.URL,
        tls: ssl.SSLContext,
        proxy: httpx.URL | None = None,
        check: Callable[[str], None] | None = None,
        heeded: Container[bytes] | None = None,
    ) -> None:
        secure = origin.scheme == "https"
        # What an address of a plain origin begins with, when a proxy is asked for it.
        self._prefix = b"" if proxy is None or secure else b"http://" + origin.netloc
        self._proxy_lines: list[bytes] = []
        by_way_of = None
        if proxy is not None:
            by_way_of = Proxy(_place(proxy), proxy.scheme == "https", _basic(proxy))
            if by_way_of.authorization is not None and not secure:
                self._proxy_lines.append(b"Proxy-Authorization: " + by_way_of.authorization)
        self._dialer = Dialer(_place(origin, check), secure, tls, by_way_of)
        self._heeded = heeded
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []  # the one used last at the end
        self._open: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._all_ended = asyncio.Event()  # after it was closed

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The head of the reply; its `stream` must be closed.

        `httpx.TransportError` when there is none. Once bytes may have left the request is not repeated, but for a GET
        on a kept connection that ends without a byte of a reply: the other side had closed it before.
        """
        head = self._head(request)
        again = request.method == "GET"
        while True:
            kept = self._kept()
            connection = kept or await self._connect(request)
            request.extensions[SENT] = True
            try:
                if isinstance(request.stream, httpx.ByteStream):
                    connection.ask(b"".join((head, *request.stream)), whole=True)
                else:
                    await _upload(connection, head, request.stream)
                await connection.head()
            except BaseException as error:
                connection.abort()
                if not isinstance(error, ConnectionError):
                    raise
                if kept is None or connection.heard or not again:
                    raise httpx.ReadError(str(error), request=request) from error
                again = False
                continue
            return self._response(connection)

    async def aclose(self) -> None:
        """Closes every connection, and waits shortly for the ends of those by TLS."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._open):
            connection.close()
        if self._open:
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await self._all_ended.wait()
        for connection in list(self._open):
            connection.abort()

    def _response(self, connection: Connection) -> httpx.Response:
        """Of a connection that has the head of a reply."""
        status, headers = connection.status, connection.headers
        if self._heeded is not None:
            headers = [(name, value) for name, value in headers if name.lower() in self._heeded]
        body = connection.whole()
        if body is None:
            return httpx.Response(status, headers=headers, stream=_Reply(connection, self._give_back))
        self._give_back(connection)
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))

    def _head(self, request: httpx.Request) -> bytes:
        """`httpx.LocalProtocolError` for what would end a line early."""
        target = self._prefix + request.url.raw_path
        lines = [b": ".join(pair) for pair in request.headers.raw]
        text = b"".join(lines)
        if text.translate(None, _CONTROL) != text:
            raise httpx.LocalProtocolError("a header holds control characters", request=request)
        first = b"%b %b HTTP/1.1" % (request.method.encode(), target)
        return b"\r\n".join([first, *lines, *self._proxy_lines, b"\r\n"])

    # Connections ------------------------------------------------------------------------------------------

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_fresh() and connection.idle_since + KEEP_ALIVE_SECONDS > self._loop.time():
                return connection
            connection.abort()
        return None

    async def _connect(self, request: httpx.Request) -> Connection:
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("connect")):
                connection = await self._dialer.dial(self._ended)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("connecting took too long", request=request) from error
        except ProxyFailedError as error:
            raise httpx.ProxyError(str(error), request=request) from error
        except OSError as error:
            raise httpx.ConnectError("no connection", request=request) from error
        if connection.closed or self._closed:
            connection.abort()
            raise httpx.ConnectError("no connection", request=request)
        self._open.add(connection)
        return connection

    def _give_back(self, connection: Connection) -> None:
        if self._closed or not connection.done():
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KEEP_ALIVE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Closes what was idle for too long: those at the beginning."""
        self._sweeper = None
        until = self._loop.time() - KEEP_ALIVE_SECONDS
        while self._idle and self._idle[0].idle_since <= until:
            self._idle.pop(0).close()
        if self._idle:
            self._sweeper = self._loop.call_at(self._idle[0].idle_since + KEEP_ALIVE_SECONDS, self._sweep)

    def _ended(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._closed and not self._open:
            self._all_ended.set()


class _Reply(httpx.AsyncByteStream):
    """The body of a reply, in pieces as they come."""

    def __init__(self, connection: Connection, give_back: Callable[[Connection], None]) -> None:
        self._connection: Connection | None = connection
        self._give_back = give_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is None:
            raise httpx.StreamClosed
        try:
            piece = await self._connection.piece()
        except ConnectionError as error:
            raise httpx.ReadError(str(error)) from error
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._give_back(connection)


async def _upload(
    connection: Connection, head: bytes, body: httpx.SyncByteStream | httpx.AsyncByteStream | None
) -> None:
    """Sends a request, as far as the other side wants it: with a reply it may come to an end before."""
    assert isinstance(body, httpx.AsyncByteStream)  # noqa: S101 - tells the type checker
    connection.ask(head, whole=False)
    try:
        async for piece in body:
            if not await connection.more(piece):
                return
        connection.sent()
    finally:
        await body.aclose()


def _place(url: httpx.URL, check: Callable[[str], None] | None = None) -> Place:
    return Place(url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80), check)


def _basic(proxy: httpx.URL) -> bytes | None:
    """The `proxy-authorization` of the user in its address."""
    if not proxy.userinfo:
        return None
    return b"Basic " + base64.b64encode(f"{proxy.username}:{proxy.password}".encode())
