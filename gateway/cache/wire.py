"""One connection to Redis: opened with the address's TLS and login, then replies in the order they come.

redis-py reads the address and makes the TLS context, hiredis (its parser) packs and parses. Its connections are not
used: they read one reply per awaited call, through three coroutines (docs/adr/0019).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

ReplyError = hiredis.ReplyError
Replies = Callable[[Any], None]
Command = tuple[str | bytes | int, ...]
# A command as it goes over the wire.
pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # a tuple of any length
_INCOMPLETE = object()


class Wire(asyncio.Protocol):
    """Hands each reply to `heard`, and tells `lost` once when the connection has ended without `close`."""

    def __init__(self, heard: Replies, lost: Callable[[], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it has ended, by whichever side."""
        return self._closed

    def send(self, packed: bytes) -> None:
        """Writes packed commands; nothing happens on a connection that has ended."""
        if self._transport is not None and not self._closed:
            self._transport.write(packed)

    def hand_over(self, heard: Replies, lost: Callable[[], None]) -> None:
        """From here on somebody else listens."""
        self._heard, self._lost = heard, lost

    def close(self) -> None:
        """Ends the connection at once: nothing is heard of it any more, `lost` included."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        if self._closed:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
            while not self._closed:
                reply = reader.gets()
                if reply is _INCOMPLETE:
                    return
                self._heard(reply)
        except hiredis.ProtocolError:  # whatever is at the other end, it is not Redis
            self.connection_lost(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._closed:
            self.close()
            self._lost()


class Address:
    """Where Redis is: `redis://`, `rediss://` (redis-py's `ssl_…` options in the query) or `unix://`."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = dict(parse_url(url))
        self._path: str | None = options.get("path")
        self._host: str = options.get("host", "localhost")
        self._port: int = options.get("port", 6379)
        self._tls: SSLConnection | None = None
        if options.get("connection_class") is SSLConnection:
            named = {name: value for name, value in options.items() if name.startswith("ssl_")}
            self._tls = SSLConnection(**named)
        self._greeting = _greeting(options)

    async def connect(self, heard: Replies, lost: Callable[[], None], timeout: float) -> Wire:
        """A connection that is logged in. Raises OSError (TimeoutError is one) when there is none in `timeout` s."""
        replies: list[Any] = []
        greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def greet(reply: Any) -> None:
            replies.append(reply)
            if len(replies) == len(self._greeting):
                settle()

        def settle() -> None:
            if not greeted.done():
                greeted.set_result(None)

        wire = Wire(greet, settle)
        tls = None if self._tls is None else self._tls.ssl_context.get()  # made once, which takes a while
        try:
            async with asyncio.timeout(timeout):
                await self._open(wire, tls)
                if self._greeting:
                    wire.send(b"".join(pack(command) for command in self._greeting))
                    await greeted
            _check(replies, wire)
        except BaseException:
            wire.close()
            raise
        wire.hand_over(heard, lost)
        return wire

    async def _open(self, wire: Wire, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        if self._path is not None:
            await loop.create_unix_connection(lambda: wire, self._path)
        else:
            await loop.create_connection(lambda: wire, self._host, self._port, ssl=tls)


def _check(replies: list[Any], wire: Wire) -> None:
    for reply in replies:
        if isinstance(reply, ReplyError):
            # Only its first word: a server may repeat what it was told, the password among it.
            raise ConnectionRefusedError(str(reply).partition(" ")[0])
    if wire.closed:
        raise ConnectionResetError("closed while connecting")


def _greeting(options: dict[str, Any]) -> list[Command]:
    """What a new connection says first."""
    user, password, number = options.get("username"), options.get("password"), options.get("db", 0)
    greeting: list[Command] = []
    if password is not None:
        greeting.append(("AUTH", user, password) if user else ("AUTH", password))
    if number:
        greeting.append(("SELECT", number))
    return greeting
