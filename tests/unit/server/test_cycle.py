"""What an application may send, and what becomes of it on the wire."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from gateway.server.cycle import JOINED, Cycle
from gateway.server.protocol import GatewayProtocol

START = "http.response.start"
BODY = "http.response.body"
DATE = b"date: now\r\n"
SCOPE: Scope = {"type": "http"}


class Wire(asyncio.Transport):
    """A connection that keeps what is written to it, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.ended = False
        self.answers = 0
        self.reading = True
        self.flow = FlowControl(self)
        self.server_state = ServerState()
        self.server_state.default_headers = [(b"date", b"now")]

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.ended

    def read_on(self) -> None:
        self.flow.resume_reading()

    def end(self) -> None:
        self.ended = True

    def answered(self) -> None:
        self.answers += 1

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def cycle(wire: Wire, method: str = "GET", **given: bool) -> Cycle:
    options = {"keep_alive": True, "expects_continue": False, "has_body": False} | given
    return Cycle(wire, method, **options)


def sends(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": START, "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": BODY, "body": data, "more_body": more}


TWO = (b"content-length", b"2")


@pytest.mark.parametrize(
    ("method", "messages", "written"),
    [
        ("GET", [start(200, TWO), body(b"ok")], [b"200 OK\r\n" + DATE + b"content-length: 2\r\n\r\nok"]),
        ("HEAD", [start(200, TWO), body(b"ok")], [b"200 OK\r\n" + DATE + b"content-length: 2\r\n\r\n"]),
        ("GET", [start(304), body()], [b"304 Not Modified\r\n" + DATE + b"\r\n"]),
        (
            "GET",
            [start(), body(b"a", more=True), body(b"bc", more=True), body()],
            [
                b"200 OK\r\n" + DATE + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n",
                b"2\r\nbc\r\n",
                b"0\r\n\r\n",
            ],
        ),
        ("HEAD", [start(), body(b"a")], [b"200 OK\r\n" + DATE + b"\r\n"]),
        (
            "GET",
            [start(299, (b"x", b"")), body()],
            [b"299 \r\n" + DATE + b"x: \r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
        ),
    ],
)
async def test_a_head_leaves_with_the_first_piece_of_its_body(
    method: str, messages: list[Message], written: list[bytes]
) -> None:
    wire = Wire()
    await cycle(wire, method).run(sends(*messages), SCOPE)
    assert [data for data in wire.writes if data] == [b"HTTP/1.1 " + written[0], *written[1:]]
    assert (wire.answers, wire.ended) == (1, False)


async def test_a_head_alone_is_not_sent_yet() -> None:
    wire = Wire()
    one = cycle(wire)
    await one.send(start(200, TWO))
    assert (wire.writes, one.started) == ([], False)
    await one.send(body(b"ok"))
    assert (len(wire.writes), one.started, one.complete) == (1, True, True)


async def test_a_long_body_is_not_copied_to_be_with_its_head() -> None:
    wire = Wire()
    data = b"x" * (JOINED + 1)
    await cycle(wire).run(sends(start(200, (b"content-length", b"%d" % len(data))), body(data)), SCOPE)
    assert wire.writes[1:] == [data]


@pytest.mark.parametrize(("keep_alive", "given"), [(False, []), (True, [(b"connection", b"close")])])
async def test_the_last_answer_of_a_connection_says_so_once(
    keep_alive: bool, given: list[tuple[bytes, bytes]]
) -> None:
    wire = Wire()
    await cycle(wire, keep_alive=keep_alive).run(sends(start(200, TWO, *given), body(b"ok")), SCOPE)
    assert wire.writes[0].count(b"connection: close\r\n") == 1
    assert wire.ended


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: forged=1"),
        (b"x", b"a\nb"),
        (b"x", b"a\x00"),
        (b"x: y\r\nz", b"a"),
        (b"x y", b"a"),
        (b"", b"a"),
    ],
)
async def test_a_header_with_a_line_of_its_own_is_never_written(header: tuple[bytes, bytes]) -> None:
    wire = Wire()
    await cycle(wire).run(sends(start(200, header, TWO), body(b"ok")), SCOPE)
    assert wire.writes[0].startswith(b"HTTP/1.1 500 ")
    assert b"forged" not in wire.writes[0]
    assert wire.ended


@pytest.mark.parametrize(
    "messages",
    [
        [body(b"ok")],
        [start(200, TWO), start(200, TWO)],
        [start(200, TWO), body(b"long")],
        [start(200, TWO), body(b"s")],
        [start(200, TWO)],
        [],
    ],
)
async def test_what_is_no_answer_is_a_500_while_nothing_is_sent(messages: list[Message]) -> None:
    wire = Wire()
    await cycle(wire).run(sends(*messages), SCOPE)
    assert b"".join(wire.writes).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"connection: close\r\n" in wire.writes[0]
    assert wire.ended


@pytest.mark.parametrize(
    "messages",
    [
        [start(200, TWO), body(b"o", more=True)],
        [start(200, TWO), body(b"o", more=True), body(b"kay")],
        [start(), body(b"o", more=True), start()],
    ],
)
async def test_a_begun_answer_that_fails_is_cut_off(messages: list[Message]) -> None:
    wire = Wire()
    await cycle(wire).run(sends(*messages), SCOPE)
    assert wire.ended
    assert wire.answers == 0
    assert b"".join(wire.writes).count(b"HTTP/1.1") == 1
    assert b"0\r\n\r\n" not in b"".join(wire.writes)


async def test_nothing_follows_a_whole_answer() -> None:
    wire = Wire()
    one = cycle(wire)
    await one.send(start(200, TWO))
    await one.send(body(b"ok"))
    with pytest.raises(RuntimeError):
        await one.send(body(b"more"))
    assert await one.receive() == {"type": "http.disconnect"}


async def test_a_client_that_is_gone_is_sent_nothing() -> None:
    wire = Wire()
    one = cycle(wire)
    one.lose()
    assert await one.receive() == {"type": "http.disconnect"}
    await one.run(sends(start(200, TWO), body(b"ok")), SCOPE)
    assert (wire.writes, wire.answers) == ([], 0)


async def test_a_body_is_received_as_it_comes() -> None:
    wire = Wire()
    one = cycle(wire, "POST", has_body=True)
    one.take(b"a", last=False)
    one.take(b"b", last=False)
    assert await one.receive() == {"type": "http.request", "body": b"ab", "more_body": True}
    waiting = asyncio.create_task(one.receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    one.take(b"", last=True)
    assert await waiting == {"type": "http.request", "body": b"", "more_body": False}
    leaving = [asyncio.create_task(one.receive()) for _ in range(2)]
    await asyncio.sleep(0)
    one.lose()
    assert [await task for task in leaving] == [{"type": "http.disconnect"}] * 2


async def test_without_a_body_there_is_one_empty_piece() -> None:
    wire = Wire()
    assert await cycle(wire).receive() == {"type": "http.request", "body": b"", "more_body": False}


async def test_a_body_nobody_asks_for_is_not_read_on() -> None:
    wire = Wire()
    one = cycle(wire, "POST", has_body=True)
    one.take(b"x" * 70_000, last=False)
    assert not wire.reading
    await one.receive()
    assert wire.reading


async def test_who_has_sent_all_of_a_body_is_read_on_so_that_its_leaving_is_heard() -> None:
    wire = Wire()
    one = cycle(wire, "POST", has_body=True)
    waiting = asyncio.create_task(one.receive())
    await asyncio.sleep(0)
    one.take(b"x" * 70_000, last=True)
    assert not wire.reading
    assert len((await waiting)["body"]) == 70_000
    assert wire.reading


async def test_it_says_when_nobody_is_left_to_answer() -> None:
    answered, lost = cycle(Wire()), cycle(Wire())
    assert [answered.client_gone(), lost.client_gone()] == [False, False]
    await answered.run(sends(start(200, TWO), body(b"o", more=True)), SCOPE)
    assert not answered.client_gone()
    await answered.send(body(b"k"))
    lost.lose()
    assert answered.client_gone()
    assert lost.client_gone()


@pytest.mark.parametrize("asks", [True, False])
async def test_100_is_sent_to_who_waits_for_it_when_the_body_is_wanted(asks: bool) -> None:
    wire = Wire()
    one = cycle(wire, "POST", expects_continue=asks, has_body=True)
    one.take(b"a", last=True)
    await one.receive()
    assert wire.writes == ([b"HTTP/1.1 100 Continue\r\n\r\n"] if asks else [])


async def test_a_client_that_cannot_be_read_any_more_is_not_asked_to_go_on() -> None:
    wire = Wire()
    waiting = cycle(wire, "POST", expects_continue=True, has_body=True)
    waiting.lose()
    assert await waiting.receive() == {"type": "http.disconnect"}
    assert wire.writes == []


async def test_a_request_leaves_nothing_to_the_garbage_collector() -> None:
    """Who asks whether a client has gone holds the cycle; the cycle must not hold who asks."""
    config = uvicorn.Config(sends(start(200, TWO), body(b"ok")), lifespan="off", log_config=None)
    state, wire = ServerState(), Wire()
    connection = GatewayProtocol(config, state, {})
    connection.connection_made(wire)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while state.tasks:
                await asyncio.sleep(0)
        assert gc.collect() < 20
    finally:
        gc.enable()
        connection.connection_lost(ConnectionResetError())
    assert len(wire.writes) == 20
