"""A TCP proxy that does to a connection what networks do: delays, cuts, swallows, refuses. Loopback only."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Target = tuple[str, int] | str
Result = TypeVar("Result")


class FaultProxy:
    """Passes bytes on to `target`: a TCP address or the path of a unix socket. Faults may change at any moment."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.port = 0
        self.delay = 0.0  # seconds each piece from the server is late
        self.blackhole = False  # connections are accepted, bytes vanish
        # The next request with these bytes is passed on; its reply is lost, the connection reset.
        self.lose_reply_to: bytes | None = None
        self.replies_lost = 0
        self.accepted = 0
        self._listening: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        """Takes connections, on the same port as before."""
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """New connections are refused from here on; `listen` ends that."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def cut(self) -> None:
        """Every open connection is reset."""
        for writer in list(self._open):
            _reset(writer)

    def kill(self) -> None:
        """As if the server's process had died: nothing is taken, everything is reset."""
        self.refuse()
        self.cut()

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._running)

    async def close(self) -> None:
        self.kill()
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        self.accepted += 1
        with suppress(OSError, asyncio.CancelledError):
            await self._serve((reader, writer))

    async def _serve(self, client: Ends) -> None:
        self._open.add(client[1])
        try:
            server = await self._connect()
            self._open.add(server[1])
            link = _Link(client, server)
            pumps = [
                asyncio.create_task(self._pump_requests(link)),
                asyncio.create_task(self._pump_replies(link)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
                await self._close(server[1])
        finally:
            await self._close(client[1])

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _connect(self) -> Ends:
        if isinstance(self._target, str):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)

    async def _pump_requests(self, link: _Link) -> None:
        with suppress(OSError):
            while data := await link.client[0].read(65536):
                if self.blackhole:
                    continue
                if self.lose_reply_to is not None and self.lose_reply_to in data:
                    self.lose_reply_to, link.loses = None, True
                link.server[1].write(data)
                await link.server[1].drain()

    async def _pump_replies(self, link: _Link) -> None:
        with suppress(OSError):
            while data := await link.server[0].read(65536):
                if link.loses:
                    self.replies_lost += 1
                    _reset(link.client[1])
                    return
                if self.delay:
                    await asyncio.sleep(self.delay)
                if not self.blackhole:
                    link.client[1].write(data)
                    await link.client[1].drain()


@dataclass(slots=True)
class _Link:
    """One connection through the proxy; `loses` when the server's next word does not get out."""

    client: Ends
    server: Ends
    loses: bool = False


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None and found.family == socket.AF_INET:
        with suppress(OSError):  # closed by its client a moment ago
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class ProxyThread:
    """A fault proxy with a loop of its own, so that it works while a test without one does."""

    def __init__(self, target: Target) -> None:
        self.proxy = FaultProxy(target)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.listen()

    @property
    def port(self) -> int:
        return self.proxy.port

    def listen(self) -> None:
        """Takes connections, again after `kill`."""
        asyncio.run_coroutine_threadsafe(self.proxy.listen(), self._loop).result(10)

    def kill(self) -> None:
        """Everything is reset, and new connections are refused."""
        self._run(self.proxy.kill)

    def cut(self) -> None:
        """Every open connection is reset; new ones are taken."""
        self._run(self.proxy.cut)

    def delay(self, seconds: float) -> None:
        """Every reply is so late from now on, on connections that are open as well."""
        self.proxy.delay = seconds

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.proxy.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, action: Callable[[], Result]) -> Result:
        async def act() -> Result:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)


@contextmanager
def proxy_thread(target: Target) -> Iterator[ProxyThread]:
    """A proxy in a thread that listens until the block ends."""
    found = ProxyThread(target)
    try:
        yield found
    finally:
        found.close()


@asynccontextmanager
async def proxied(target: Target) -> AsyncIterator[FaultProxy]:
    """A proxy that listens until the block ends."""
    proxy = FaultProxy(target)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()
