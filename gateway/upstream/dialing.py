"""New connections to one origin: straight or through a proxy, plain or by TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import httptools

from gateway.upstream.addresses import Place
from gateway.upstream.connection import LARGEST_HEAD, Connection

FAREWELL_SECONDS = 1.0  # for the other side to end TLS in good manners

Protocol = TypeVar("Protocol", bound=asyncio.Protocol)


class ProxyFailedError(OSError):
    """There is no way through the proxy."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it is, whether it is spoken to by TLS, and the `proxy-authorization` it wants, if any."""

    place: Place
    secure: bool
    authorization: bytes | None = None


@dataclass(frozen=True, slots=True)
class Dialer:
    """Makes connections to `place`; `secure`: by TLS, trusting as `tls` says."""

    place: Place
    secure: bool
    tls: ssl.SSLContext
    proxy: Proxy | None = None

    async def dial(self, ended: Callable[[Connection], None]) -> Connection:
        """A connection on which nothing was sent to the origin; it tells `ended` when it is no more.

        OSError when there is none: `ssl.SSLError` for TLS with the origin, `socket.gaierror` for its name,
        `ProxyFailedError` for what a proxy did.
        """
        if self.proxy is None:
            return await self._open(self.place, Connection(ended), secure=self.secure)
        if not self.secure:
            return await self._to_proxy(self.proxy, Connection(ended))
        tunnel = await self._to_proxy(self.proxy, _Tunnel())
        connection = Connection(ended)
        try:
            await tunnel.ask(self.place.authority, self.proxy.authorization)
            secured = await asyncio.get_running_loop().start_tls(
                tunnel.transport,
                connection,
                self.tls,
                server_hostname=self.place.host,
                ssl_shutdown_timeout=FAREWELL_SECONDS,
            )
        except BaseException:
            tunnel.transport.abort()
            raise
        if secured is None:
            raise ConnectionError("the tunnel was closed")
        connection.connection_made(secured)
        return connection

    async def _to_proxy(self, proxy: Proxy, protocol: Protocol) -> Protocol:
        try:
            return await self._open(proxy.place, protocol, secure=proxy.secure)
        except TimeoutError:
            raise
        except OSError as error:
            raise ProxyFailedError("the proxy was not reached") from error

    async def _open(self, place: Place, protocol: Protocol, *, secure: bool) -> Protocol:
        connected = await place.connected()
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: protocol,
                sock=connected,
                ssl=self.tls if secure else None,
                server_hostname=place.host if secure else None,
                ssl_shutdown_timeout=FAREWELL_SECONDS if secure else None,
            )
        except BaseException:
            connected.close()
            place.forget()  # somebody else may be there now
            raise
        return protocol


class _Tunnel(asyncio.Protocol):
    """A connection to a proxy that is asked for a way through to a place; then TLS takes it over."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._size = 0

    async def ask(self, authority: str, authorization: bytes | None) -> None:
        """Raises ProxyFailedError unless the proxy opens the way."""
        lines = [f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n".encode()]
        if authorization is not None:
            lines.append(b"Proxy-Authorization: " + authorization + b"\r\n")
        self.transport.write(b"".join([*lines, b"\r\n"]))
        status = await self._answer
        if not 200 <= status < 300:
            raise ProxyFailedError(
                f"the proxy refused with status {status}" if status else "the proxy was not reached"
            )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._answered(0)
        if self._size > LARGEST_HEAD:
            self._answered(0)

    def connection_lost(self, error: Exception | None) -> None:
        self._answered(0)

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self._answered(self._parser.get_status_code())

    def _answered(self, status: int) -> None:
        """0 for what is no answer."""
        if not self._answer.done():
            self._answer.set_result(status)
