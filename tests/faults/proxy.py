"""A TCP proxy that does to a connection what networks do: delays, cuts, swallows, refuses. Loopback only."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class FaultProxy:
    """Passes bytes on to `target`: a TCP address or the path of a unix socket. Faults may change at any moment."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self.port = 0
        self.delay = 0.0  # seconds each piece from the server is late
        self.blackhole = False  # connections are accepted, bytes vanish
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
            found = writer.get_extra_info("socket")
            if found is not None and found.family == socket.AF_INET:
                with suppress(OSError):  # closed by its client a moment ago
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

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
            pumps = [
                asyncio.create_task(self._pump(client[0], server[1], from_server=False)),
                asyncio.create_task(self._pump(server[0], client[1], from_server=True)),
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

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_server: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if from_server and self.delay:
                    await asyncio.sleep(self.delay)
                if not self.blackhole:
                    writer.write(data)
                    await writer.drain()


@asynccontextmanager
async def proxied(target: tuple[str, int] | str) -> AsyncIterator[FaultProxy]:
    """A proxy that listens until the block ends."""
    proxy = FaultProxy(target)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()
