"""Work that is of use only while its client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

Result = TypeVar("Result")


class ClientLeftError(Exception):
    """The client went away before anything was sent for it; nobody is left to answer."""


async def left(receive: Receive) -> None:
    """Returns when the client has gone; its request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def has_left(receive: Receive) -> bool:
    """Whether the client has gone by now, as far as the server knows; likewise."""
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
