"""Where Redis is, and how a connection to it is opened: TLS first, then the login.

What an address says of TLS is redis-py's to read, which makes the context too. It is loaded for such addresses only: it
takes nine megabytes, and a tenth of the time in which a process is ready.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from gateway.cache.wire import Command, Replies, ReplyError, Wire, pack

PORT = 6379


class Address:
    """`redis://`, `rediss://` (with `ssl_…` options in the query) or `unix://`, as the settings have checked it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.path = unquote(parts.path) if parts.scheme == "unix" else None
        self.host = unquote(parts.hostname or "localhost")
        self.port = parts.port or PORT
        self.greeting = _greeting(parts)
        self._tls: Any = _redis_py(url) if parts.scheme == "rediss" else None

    async def connect(self, heard: Replies, lost: Callable[[], None], timeout: float) -> Wire:
        """A connection that is logged in. Raises OSError (TimeoutError is one) when there is none in `timeout` s."""
        replies: list[Any] = []
        greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def greet(reply: Any) -> None:
            replies.append(reply)
            if len(replies) == len(self.greeting):
                settle()

        def settle() -> None:
            if not greeted.done():
                greeted.set_result(None)

        wire = Wire(greet, settle)
        tls = None if self._tls is None else self._tls.ssl_context.get()  # made once, which takes a while
        try:
            async with asyncio.timeout(timeout):
                await self._open(wire, tls)
                if self.greeting:
                    wire.send(b"".join(pack(command) for command in self.greeting))
                    await greeted
            _check(replies, wire)
        except BaseException:
            wire.close()
            raise
        wire.hand_over(heard, lost)
        return wire

    async def _open(self, wire: Wire, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        if self.path is not None:
            await loop.create_unix_connection(lambda: wire, self.path)
        else:
            await loop.create_connection(lambda: wire, self.host, self.port, ssl=tls)


def _check(replies: list[Any], wire: Wire) -> None:
    for reply in replies:
        if isinstance(reply, ReplyError):
            # Only its first word: a server may repeat what it was told, the password among it.
            raise ConnectionRefusedError(str(reply).partition(" ")[0])
    if wire.closed:
        raise ConnectionResetError("closed while connecting")


def _redis_py(url: str) -> Any:
    """What knows the TLS context of this address."""
    from redis.asyncio.connection import SSLConnection, parse_url

    options: dict[str, Any] = dict(parse_url(url))
    return SSLConnection(**{name: value for name, value in options.items() if name.startswith("ssl_")})


def _greeting(parts: SplitResult) -> list[Command]:
    """What a new connection says first. As with redis-py, a login before the host wins over one in the query, and a
    database in the query over one in the path."""
    options = {name: values[0] for name, values in parse_qs(parts.query).items()}
    user = unquote(parts.username or "") or options.get("username")
    password = unquote(parts.password or "") or options.get("password")
    number = options.get("db", "" if parts.scheme == "unix" else parts.path.strip("/"))
    greeting: list[Command] = []
    if password:
        greeting.append(("AUTH", user, password) if user else ("AUTH", password))
    if number and int(number):
        greeting.append(("SELECT", int(number)))
    return greeting
