"""Accepting: many a turn, through exhaustion, on every address."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import uvicorn

from gateway.server.acceptor import Acceptor, AcceptorLoop, bind_sockets, new_event_loop
from tests.unit.server.raw_http import served


@pytest.fixture
def loop() -> Iterator[AcceptorLoop]:
    running = new_event_loop()
    yield running
    running.close()


class Hello(asyncio.Protocol):
    """Says hello and closes; `opened` counts."""

    opened = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Hello.opened += 1
        connection = cast("asyncio.Transport", transport)  # uvloop's is none by name
        nodelay = connection.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.write(b"hello" if nodelay else b"delay")
        connection.close()


class Unwilling(socket.socket):
    """A listener whose `accept` fails with each of `failures` first."""

    failures: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            raise OSError(self.failures.pop(0), "refused by the test")
        return super().accept()


@asynccontextmanager
async def listening(sock: socket.socket) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(Hello, sock=sock, backlog=512)
    assert server.is_serving()
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    assert not server.is_serving()
    assert not server.sockets


async def hello(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


def test_a_burst_is_accepted_in_a_few_turns(loop: AcceptorLoop) -> None:
    async def run() -> tuple[int, int]:
        async with listening(bind_sockets("127.0.0.1", 0)[0]) as port:
            clients = []
            for _ in range(256):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
                clients.append(client)
            Hello.opened = turns = 0
            while Hello.opened < 256 and turns < 1000:
                await asyncio.sleep(0)
                turns += 1
            for client in clients:
                client.close()
            return Hello.opened, turns

    opened, turns = loop.run_until_complete(run())
    assert opened == 256
    assert turns < 64  # uvloop's own server takes more than 256


@pytest.mark.parametrize("reason", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS])
def test_exhaustion_is_waited_out_and_said_once(
    loop: AcceptorLoop, caplog: pytest.LogCaptureFixture, reason: int
) -> None:
    async def run() -> bytes:
        listener = Unwilling()
        listener.failures = [reason, reason]
        listener.bind(("127.0.0.1", 0))
        async with listening(listener) as port:
            return await hello(port)

    with caplog.at_level(logging.ERROR):
        assert loop.run_until_complete(run()) == b"hello"
    assert len(caplog.records) == 1


def test_a_connection_that_died_in_the_queue_is_passed_over(
    loop: AcceptorLoop, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> bytes:
        listener = Unwilling()
        listener.failures = [errno.ECONNABORTED, errno.EPROTO]
        listener.bind(("127.0.0.1", 0))
        async with listening(listener) as port:
            return await hello(port)

    assert loop.run_until_complete(run()) == b"hello"
    assert not caplog.records


def test_a_protocol_that_cannot_be_made_costs_one_connection(
    loop: AcceptorLoop, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Callable[[], asyncio.Protocol]] = [Hello]

    async def run() -> tuple[bytes, bytes]:
        server = await loop.create_server(lambda: made.pop()(), "127.0.0.1", 0)
        assert isinstance(server, Acceptor)
        port = server.sockets[0].getsockname()[1]
        first = await hello(port)
        second = await hello(port)
        server.close()
        return first, second

    assert loop.run_until_complete(run()) == (b"hello", b"")
    assert [record.message for record in caplog.records] == ["an accepted connection could not be opened"]


def test_every_address_of_a_host_gets_the_same_port() -> None:
    sockets = bind_sockets("localhost", 0)
    assert len({listener.getsockname()[1] for listener in sockets}) == 1
    port = sockets[0].getsockname()[1]
    sockets[0].listen()
    with pytest.raises(OSError) as failure:
        bind_sockets("127.0.0.1", port)
    assert failure.value.errno == errno.EADDRINUSE
    for listener in sockets:
        listener.close()


def test_uvicorn_finds_the_loop_by_name() -> None:
    config = uvicorn.Config("a:b", loop="gateway.server.acceptor:new_event_loop", workers=2, log_config=None)
    factory = config.get_loop_factory()
    assert factory is not None
    with asyncio.Runner(loop_factory=factory) as runner:
        assert isinstance(runner.get_loop(), AcceptorLoop)


def test_256_clients_at_once() -> None:
    with served() as server:
        wires = [server.connect() for _ in range(256)]
        for number, wire in enumerate(wires):
            wire.send(f"GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for number, wire in enumerate(wires):
            assert wire.read().json["path"] == f"/{number}"
            wire.__exit__()
