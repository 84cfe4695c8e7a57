"""When an answer counts as arrived: real connections, clients that read, stall, close and break off."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from gateway.proxy.arrival import when_arrived
from gateway.server import arrival
from gateway.server.acceptor import new_event_loop
from gateway.server.arrival import unacknowledged
from gateway.server.protocol import GatewayProtocol
from tests.unit.server.raw_http import DEADLINE, answer, read_body

LARGE = 4_000_000  # more than the kernels of both sides take
NEVER = 3600.0

Scenario = Callable[["Place"], Awaitable[None]]
Run = Callable[[Scenario], None]


@dataclass
class Place:
    """A server whose path says how many bytes it answers; `told` is what it learnt of its answers, in order."""

    port: int
    told: list[bool]

    async def client(self, size: int, *fields: str) -> socket.socket:
        """A connection with little room on which an answer of `size` bytes was asked for."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        await ask(connection, size, *fields)
        return connection

    async def learns(self, *told: bool) -> None:
        """Fails unless exactly this is told in time."""
        until = time.monotonic() + DEADLINE
        while len(self.told) < len(told):
            assert time.monotonic() < until, self.told
            await asyncio.sleep(0.005)
        assert self.told == [*told]


async def ask(connection: socket.socket, size: int, *fields: str) -> None:
    lines = [f"POST /{size} HTTP/1.1", "Host: x", "Content-Length: 2", *fields, "", "{}"]
    await asyncio.get_running_loop().sock_sendall(connection, "\r\n".join(lines).encode())


async def read(connection: socket.socket, size: int) -> None:
    """Reads so many bytes of an answer's body, its head before them."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += await some(connection)
    left = size - len(found.partition(b"\r\n\r\n")[2])
    while left > 0:
        left -= len(await some(connection, left))


async def some(connection: socket.socket, most: int = 65536) -> bytes:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE):
        piece = await loop.sock_recv(connection, min(most, 65536))
    assert piece, "the connection ended"
    return piece


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    told: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await answer(send, 200, b"x" * int(scope["path"][1:]))
        when_arrived(scope, told.append)

    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: GatewayProtocol(config, state, {}), "127.0.0.1", 0)
    yield Place(server.sockets[0].getsockname()[1], told)
    server.close()
    for connection in state.connections.copy():
        connection.transport.abort()
    while state.connections:
        await asyncio.sleep(0.005)


@pytest.fixture(params=[asyncio.new_event_loop, new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario on a loop of each kind."""

    async def scene(scenario: Scenario) -> None:
        async with place() as here:
            await scenario(here)

    def runs(scenario: Scenario) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scene(scenario))

    return runs


@pytest.fixture
def only_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first look nothing but the connection's own events makes it look again."""
    monkeypatch.setattr(arrival, "FIRST_DELAY_SECONDS", NEVER)
    monkeypatch.setattr(arrival, "PATIENCE_SECONDS", NEVER)


@pytest.mark.parametrize("size", [10, LARGE])
def test_what_is_read_has_arrived(run: Run, size: int) -> None:
    async def scenario(here: Place) -> None:
        with await here.client(size) as connection:
            await read(connection, size)
            await here.learns(True)

    run(scenario)


def test_what_is_not_read_has_not_arrived_before_it_is(run: Run) -> None:
    async def scenario(here: Place) -> None:
        with await here.client(LARGE) as connection:
            await read(connection, LARGE // 2)
            await here.learns()
            await read_on(connection, LARGE - LARGE // 2)
            await here.learns(True)

    run(scenario)


async def read_on(connection: socket.socket, left: int) -> None:
    while left:
        left -= len(await some(connection, left))


def test_a_client_that_stalls_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "PATIENCE_SECONDS", 0.3)

    async def scenario(here: Place) -> None:
        with await here.client(LARGE) as connection:
            await here.learns(False)
            await read(connection, LARGE)
            await ask(connection, 10)
            await read(connection, 10)
            await here.learns(False, True)

    run(scenario)


@pytest.mark.usefixtures("only_events")
@pytest.mark.parametrize("fields", [(), ("Connection: close",)], ids=["keep-alive", "close"])
def test_who_reads_everything_and_closes_has_it(run: Run, fields: tuple[str, ...]) -> None:
    async def scenario(here: Place) -> None:
        with await here.client(LARGE, *fields) as connection:
            await read(connection, LARGE)
        await here.learns(True)

    run(scenario)


@pytest.mark.usefixtures("only_events")
def test_who_asks_for_more_has_the_answer_before(run: Run) -> None:
    async def scenario(here: Place) -> None:
        with await here.client(LARGE) as connection:
            await read(connection, LARGE)
            assert here.told == []
            await ask(connection, LARGE)
            await here.learns(True)

    run(scenario)


@pytest.mark.usefixtures("only_events")
def test_who_asks_for_more_without_reading_has_nothing(run: Run) -> None:
    async def scenario(here: Place) -> None:
        with await here.client(LARGE) as connection:
            await ask(connection, LARGE)
            await read(connection, LARGE // 2)
            await here.learns()
            break_off(connection)
        await here.learns(False, False)

    run(scenario)


@pytest.mark.usefixtures("only_events")
@pytest.mark.parametrize("half", [False, True], ids=["nothing read", "half read"])
def test_who_breaks_off_does_not_have_it(run: Run, half: bool) -> None:
    async def scenario(here: Place) -> None:
        with await here.client(LARGE) as connection:
            await read(connection, LARGE // 2 if half else 0)
            break_off(connection)
        await here.learns(False)

    run(scenario)


def break_off(connection: socket.socket) -> None:
    """The next close resets."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(("failure", "left"), [(errno.ENOTTY, 0), (errno.EBADF, 1)])
def test_a_system_that_cannot_say_is_believed(
    monkeypatch: pytest.MonkeyPatch, failure: int, left: int
) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(failure, "refused")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with socket.socket() as connection:
        assert unacknowledged(connection) == left


def test_a_closed_socket_has_acknowledged_nothing() -> None:
    connection = socket.socket()
    connection.close()
    assert unacknowledged(connection) == 1
