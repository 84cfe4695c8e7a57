"""An HTTP server of a few lines that does exactly what a test tells it, down to the TCP reset."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Header = tuple[str, str]


@dataclass(frozen=True)
class Request:
    """A request as it came over the wire."""

    method: str
    target: str
    headers: list[Header]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


class Connection:
    """One accepted connection."""

    def __init__(self, server: ScriptedServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.number = server.connections
        self._server = server
        self._reader = reader
        self._writer = writer

    async def request(self) -> Request | None:
        """The next request, noted by the server; None when the client closed instead."""
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.rstrip("\r\n").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        method, target, _ = first.split(" ")
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        request = Request(method, target, headers, await self._reader.readexactly(length))
        self._server.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, status: int, body: bytes = b"", *headers: Header) -> None:
        """A complete answer with its Content-Length."""
        await self.send(head(status, ("content-length", str(len(body))), *headers) + body)

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        found: socket.socket = self._writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def tunnel(self, port: int) -> None:
        """Says yes to a CONNECT, then passes every byte on to a port here and back."""
        await self.send(head(200))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ways = ((self._reader, writer), (reader, self._writer))
        both = [asyncio.create_task(_pass_on(*way)) for way in ways]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            writer.close()

    async def gone(self) -> None:
        """Waits until the client has closed."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


Script = Callable[[Connection], Awaitable[None]]


@dataclass
class ScriptedServer:
    """What it was asked so far, and where it listens."""

    port: int = 0
    connections: int = 0
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def scripted(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    """Runs `script` for every connection, which is closed when the script ends."""
    server = ScriptedServer()
    running: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        task.add_done_callback(running.discard)
        server.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await script(Connection(server, reader, writer))
        writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in list(running):
            task.cancel()
        if running:
            await asyncio.wait(running)


def head(status: int, *headers: Header) -> bytes:
    """A status line and headers."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def answering(status: int, body: bytes = b"", *headers: Header) -> Script:
    """Answers every request the same."""

    async def script(connection: Connection) -> None:
        while await connection.request() is not None:
            await connection.answer(status, body, *headers)

    return script


async def silent(connection: Connection) -> None:
    """Takes requests in and never answers."""
    await connection.request()
    await connection.gone()
