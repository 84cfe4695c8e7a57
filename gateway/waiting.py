"""Waiting for one thing for so long and no longer."""

from __future__ import annotations

import asyncio
from typing import Any


async def within(future: asyncio.Future[Any], seconds: float) -> bool:
    """Whether it is done by then, with a result or without one. It goes on undisturbed when it is not, and when who
    waits is cancelled.

    `asyncio.wait` for a single future: that one is made for many, and every paid call waits several times.
    """
    if future.done():
        return True
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_later(seconds, wake)
    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        future.remove_done_callback(wake)
    return future.done()
