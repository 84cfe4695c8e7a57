"""Whether a client is there is asked without waiting, and takes no message from whoever asks later."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from gateway.proxy.exchange import Exchange
from gateway.proxy.leaving import EXTENSION, Listening, has_left, unless_left
from gateway.server.protocol import LEAVING

GONE: Message = {"type": "http.disconnect"}
EMPTY: Message = {"type": "http.request", "body": b"", "more_body": False}


class Connection:
    """What a server says to one request, as uvicorn does it."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.changed = asyncio.Event()
        self.waiting = 0

    async def receive(self) -> Message:
        if not self.messages:
            self.waiting += 1
            try:
                await self.changed.wait()
            finally:
                self.waiting -= 1
        return self.messages.pop(0)

    def say(self, message: Message) -> None:
        self.messages.append(message)
        self.changed.set()


async def test_a_client_that_is_there_is_not_waited_for() -> None:
    connection = Connection()
    assert not has_left(connection.receive)
    assert connection.waiting == 0  # nothing stays behind
    connection.say(GONE)
    assert has_left(connection.receive)


async def test_a_client_that_left_before() -> None:
    assert has_left(Connection(GONE).receive)
    assert has_left(Connection(EMPTY, GONE).receive)
    assert not has_left(Connection(EMPTY).receive)


async def test_who_asks_later_hears_what_comes_then() -> None:
    connection = Connection()
    assert not has_left(connection.receive)
    asked = asyncio.create_task(unless_left(connection.receive, asyncio.sleep(10, "done")))
    await asyncio.sleep(0.01)
    connection.say(GONE)
    assert await asyncio.wait_for(asked, 1) is None


async def test_work_is_done_unless_the_client_leaves() -> None:
    assert await unless_left(Connection().receive, asyncio.sleep(0, "done")) == "done"


def listening(receive: Any, extensions: dict[str, Any] | None) -> Listening:
    exchange = Exchange("req_1", 0.0, None, ())
    return Listening({"type": "http", "extensions": extensions}, exchange, receive)


@pytest.mark.parametrize("gone", [True, False])
async def test_a_server_that_knows_is_asked_and_not_listened_to(gone: bool) -> None:
    async def receive() -> Message:
        raise AssertionError("nobody asked for a message")

    asked = listening(receive, {EXTENSION: lambda: gone})
    assert has_left(asked) is gone
    assert asked.left is gone


@pytest.mark.parametrize("extensions", [None, {}, {"other": {}}])
async def test_one_that_does_not_say_is_listened_to(extensions: dict[str, Any] | None) -> None:
    connection = Connection()
    asked = listening(connection.receive, extensions)
    assert (has_left(asked), asked.left) == (False, False)
    connection.say(GONE)
    assert (has_left(asked), asked.left) == (True, True)


def test_server_and_application_mean_the_same_extension() -> None:
    assert EXTENSION == LEAVING
