"""Work that is of use only while its client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.types import Message, Receive, Scope

from gateway.proxy.exchange import Exchange

Result = TypeVar("Result")
# Where `gateway.server` leaves the question whether a request's client has gone.
EXTENSION = "gateway.leaving"


class ClientLeftError(Exception):
    """The client went away before anything was sent for it; nobody is left to answer."""


class Listening:
    """The `receive` of one request, which remembers what it was told of the client."""

    __slots__ = ("_exchange", "_receive", "asked", "left")

    def __init__(self, scope: Scope, exchange: Exchange, receive: Receive) -> None:
        self._exchange = exchange
        self._receive = receive
        # None under a server that has to be listened to.
        self.asked: Callable[[], bool] | None = (scope.get("extensions") or {}).get(EXTENSION)
        self.left = False  # as far as anybody has heard

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.left = True
        elif not message.get("more_body", False):
            self._exchange.body_complete = True
        return message


def may_be_asked(receive: Receive) -> bool:
    """Whether this comes from `gateway.server`, of which one may ask what there is, and take the question back."""
    return isinstance(receive, Listening) and receive.asked is not None


async def left(receive: Receive) -> None:
    """Returns when the client has gone; its request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def has_left(receive: Receive) -> bool:
    """Whether the client has gone by now, as far as the server knows; likewise."""
    if isinstance(receive, Listening) and receive.asked is not None:
        receive.left = receive.asked()
        return receive.left
    asked = left(receive)
    try:
        asked.send(None)  # goes on until there is something to wait for
    except StopIteration:
        return True
    asked.close()
    return False


async def unless_left(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result | None:
    """The work's result; None when the client left before, and the work was cancelled."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait({working, leaving})
