"""Accepting connections: many per turn of the event loop.

uvloop accepts one new connection a turn (libuv 1.52). With turns of 10 ms a burst of 256 clients waits seconds for
its first byte although each request takes milliseconds, and health checks fail under load.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import uvloop

ACCEPTS_PER_TURN = 64
PAUSE_SECONDS = 0.2

# accept(2) reports errors of the new connection too; they say nothing about the next one
_ITS_OWN = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EHOSTUNREACH, errno.ENETUNREACH})
_SAY_AGAIN_SECONDS = 60.0

logger = logging.getLogger(__name__)


class Acceptor(asyncio.AbstractServer):
    """Takes connections from listening sockets, up to `ACCEPTS_PER_TURN` of each socket a turn.

    When the system refuses (no file descriptors left, mostly) it rests `PAUSE_SECONDS` and says so, once a minute.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sockets: list[socket.socket],
        backlog: int,
    ) -> None:
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._sockets = sockets
        self._backlog = backlog
        self._serving = False
        self._said_at = -_SAY_AGAIN_SECONDS
        self._opening: set[asyncio.Task[Any]] = set()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets; none when closed."""
        return tuple(self._sockets)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that serves."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether connections are being accepted."""
        return self._serving

    async def start_serving(self) -> None:
        """Listen and accept; again is a no-op."""
        if self._serving:
            return
        self._serving = True
        for listener in self._sockets:
            listener.setblocking(False)
            listener.listen(self._backlog)
            self._loop.add_reader(listener, self._accept, listener)

    async def serve_forever(self) -> None:
        """Accept until cancelled."""
        await self.start_serving()
        try:
            await self._loop.create_future()
        finally:
            self.close()

    def close(self) -> None:
        """Stop accepting and close the listening sockets; open connections live on."""
        self._serving = False
        listeners, self._sockets = self._sockets, []
        for listener in listeners:
            self._loop.remove_reader(listener)
            listener.close()

    async def wait_closed(self) -> None:
        """Return when every accepted connection has been handed to its protocol."""
        if self._opening:
            await asyncio.wait(self._opening)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, _address = listener.accept()
            except BlockingIOError:
                return
            except OSError as failure:
                if failure.errno in _ITS_OWN:
                    continue
                self._rest(listener, failure)
                return
            connection.setblocking(False)
            opening = self._loop.create_task(
                self._loop.connect_accepted_socket(self._protocol_factory, connection)
            )
            self._opening.add(opening)
            opening.add_done_callback(partial(self._opened, connection))

    def _opened(self, connection: socket.socket, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        if opening.cancelled():
            connection.close()
        elif (failure := opening.exception()) is not None:
            connection.close()
            logger.error("an accepted connection could not be opened", exc_info=failure)

    def _rest(self, listener: socket.socket, failure: OSError) -> None:
        now = self._loop.time()
        if now - self._said_at >= _SAY_AGAIN_SECONDS:
            self._said_at = now
            logger.error("new connections have to wait: %s", failure)
        self._loop.remove_reader(listener)
        self._loop.call_later(PAUSE_SECONDS, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._sockets:
            self._loop.add_reader(listener, self._accept, listener)


class AcceptorLoop(uvloop.Loop):
    """uvloop, except for how its plain TCP servers accept."""

    async def create_server(  # type: ignore[override] # every form that asyncio has, in one signature
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        **options: Any,
    ) -> asyncio.AbstractServer:
        """As asyncio's, by an `Acceptor` for plain TCP; uvloop's own server for anything it would not know."""
        known = {"backlog": 100, "start_serving": True, "ssl": None} | options
        if known["ssl"] is not None or len(known) > 3:
            create: Callable[..., Any] = super().create_server
            server: asyncio.AbstractServer = await create(protocol_factory, host, port, sock=sock, **options)
            return server
        sockets = [sock] if sock is not None else bind_sockets(host, port or 0)
        acceptor = Acceptor(self, protocol_factory, sockets, known["backlog"])
        if known["start_serving"]:
            await acceptor.start_serving()
        return acceptor


def new_event_loop() -> AcceptorLoop:
    """A loop for `uvicorn.Config(loop="gateway.server.acceptor:new_event_loop")`."""
    return AcceptorLoop()


def bind_sockets(host: str | None, port: int) -> list[socket.socket]:
    """Bind every address of `host` (None or empty: all of this machine) to `port`; 0 picks one, the same for all.

    An address family this machine does not have is passed over while another one can be bound. Raises `OSError`
    when none can, or when the port is taken on one of them.
    """
    bound: list[socket.socket] = []
    missing: OSError | None = None
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _name, address in dict.fromkeys(found):
        try:
            bound.append(_bind(socket.socket(family, kind, protocol), (address[0], port, *address[2:])))
        except OSError as failure:
            if failure.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                for listener in bound:
                    listener.close()
                raise
            missing = failure
        else:
            port = bound[0].getsockname()[1]
    if missing is not None and not bound:
        raise missing
    return bound


def _bind(listener: socket.socket, address: tuple[Any, ...]) -> socket.socket:
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
