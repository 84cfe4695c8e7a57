"""One timer for all that a connection waits for."""

from __future__ import annotations

import asyncio
import time
from contextvars import copy_context

from gateway.server.deadline import Deadline


class Told:
    def __init__(self) -> None:
        self.at: list[float] = []
        self.deadline = Deadline(asyncio.get_running_loop(), copy_context(), self.expired)

    def expired(self) -> None:
        self.at.append(time.monotonic())

    async def after(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return len(self.at)


async def test_it_is_told_once_when_the_time_is_over() -> None:
    told = Told()
    began = time.monotonic()
    told.deadline.set(0.05)
    assert told.deadline.running
    assert await told.after(0.15) == 1
    assert told.at[0] - began >= 0.045
    assert not told.deadline.running


async def test_what_has_come_is_not_waited_for() -> None:
    told = Told()
    told.deadline.set(0.03)
    told.deadline.lift()
    assert not told.deadline.running
    assert await told.after(0.1) == 0


async def test_a_later_one_takes_its_place_and_so_does_an_earlier() -> None:
    told = Told()
    told.deadline.set(0.03)
    told.deadline.lift()
    told.deadline.set(0.2)
    assert await told.after(0.1) == 0
    told.deadline.set(0.03)
    assert await told.after(0.06) == 1
    assert await told.after(0.2) == 1


async def test_a_connection_that_has_ended_waits_for_nothing() -> None:
    told = Told()
    told.deadline.set(0.02)
    told.deadline.stop()
    assert await told.after(0.06) == 0
