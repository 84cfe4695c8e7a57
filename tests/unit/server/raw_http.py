"""A server on loopback in a thread of its own, and a client that sends exactly the bytes it is given."""

import asyncio
import hashlib
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Any

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from gateway.server.acceptor import bind_sockets
from gateway.server.draining import DrainingServer
from gateway.server.protocol import protocol_class

DEADLINE = 8.0  # seconds; nothing here takes a tenth of it


class EchoApp:
    """Answers with what it has received. The path picks a behaviour; `scopes` keeps every request's scope.

    Its drain ends when no `/paid` call runs any more; meanwhile `/` says so.
    """

    def __init__(self) -> None:
        self.paid = 0
        self.draining = False
        self.scopes: list[Scope] = []
        self.gone: list[str] = []
        self.released = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["drain"] = self.drain
            await _lifespan(receive, send)
            return
        self.scopes.append(scope)
        match scope["path"]:
            case "/early":  # answers without reading
                await answer(send, 401, b"{}")
            case "/half":  # begins its answer, then reads
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"begun", "more_body": True})
                await read_body(receive)
                self.gone.append("/half")
            case "/wait":  # reads, then answers when the test says so
                body, _ = await read_body(receive)
                while not self.released.is_set():
                    await asyncio.sleep(0.005)
                await answer(send, 200, body)
            case "/paid":  # for as many seconds as the query says
                self.paid += 1
                await asyncio.sleep(float(scope["query_string"]))
                self.paid -= 1
                await answer(send, 200, b"paid")
            case "/":
                state = {"pid": os.getpid(), "draining": self.draining, "files": _file_limits()}
                await answer(send, 200, json.dumps(state).encode())
            case "/big":
                await answer(send, 200, b"x" * 4_000_000)
            case _:
                body, ended = await read_body(receive)
                if ended:
                    await answer(send, 200, json.dumps(_described(scope, body)).encode())
                else:
                    self.gone.append(scope["path"])

    async def drain(self) -> None:
        """What the gateway's application leaves in its lifespan state."""
        self.draining = True
        while self.paid:
            await asyncio.sleep(0.005)


class FailingApp:
    """An application that cannot start."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})


def _file_limits() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def _described(scope: Scope, body: bytes) -> dict[str, Any]:
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    text = body.decode("latin-1") if len(body) < 10_000 else hashlib.sha256(body).hexdigest()
    return {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "headers": headers,
        "length": len(body),
        "body": text,
    }


async def read_body(receive: Receive) -> tuple[bytes, bool]:
    """The body, and whether it came to its end before the client was gone."""
    pieces: list[bytes] = []
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(pieces), False
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces), True


async def answer(send: Send, status: int, body: bytes) -> None:
    """A whole JSON answer."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


@dataclass
class Answer:
    """One answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@dataclass
class Wire:
    """One client connection."""

    sock: socket.socket
    reader: BufferedReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = self.sock.makefile("rb")

    def send(self, *pieces: bytes) -> None:
        """Send each piece as a segment of its own."""
        for piece in pieces:
            self.sock.sendall(piece)

    def read(self) -> Answer:
        """The next answer, interim ones skipped."""
        while True:
            line = self.reader.readline()
            assert line.startswith(b"HTTP/1.1 "), f"no answer but {line!r}"
            status = int(line.split(b" ")[1])
            headers: dict[str, str] = {}
            while (line := self.reader.readline()) != b"\r\n":
                name, _, value = line.decode("latin-1").rstrip("\r\n").partition(": ")
                assert name not in headers, f"{name} twice"
                headers[name] = value
            if status >= 200:
                return Answer(status, headers, self.reader.read(int(headers.get("content-length", "0"))))

    def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        return self.reader.read()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.sock.close()


@dataclass
class Served:
    """A running server."""

    port: int
    app: EchoApp
    server: DrainingServer

    def connect(self) -> Wire:
        """A new connection."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Wire(sock)

    def ask(self, *pieces: bytes) -> Answer:
        """One answer to `pieces` on a connection of their own."""
        with self.connect() as wire:
            wire.send(*pieces)
            return wire.read()


@contextmanager
def served(header_timeout: float = 5.0, keep_alive: float = 5.0) -> Iterator[Served]:
    """An `EchoApp` behind the gateway's protocol and acceptor until the block ends."""
    app = EchoApp()
    started = threading.Event()
    config = uvicorn.Config(
        app,
        http=protocol_class(header_timeout),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=keep_alive,  # type: ignore[arg-type]
        timeout_graceful_shutdown=1,
    )
    server = DrainingServer(config, 1, started.set)
    sockets = bind_sockets("127.0.0.1", 0)
    thread = threading.Thread(target=server.run_to_end, args=(sockets, ()))
    port = sockets[0].getsockname()[1]
    thread.start()
    try:
        assert started.wait(DEADLINE)
        yield Served(port, app, server)
    finally:
        app.released.set()
        server.should_exit = True
        thread.join(DEADLINE)
        assert not thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    """Poll until `condition` holds; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)
