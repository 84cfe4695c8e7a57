"""Waiting for one future: whatever becomes of it and of who waits, neither is any other's doing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.waiting import within

LONG = 60.0


def succeed(future: asyncio.Future[Any]) -> None:
    future.set_result(7)


def fail(future: asyncio.Future[Any]) -> None:
    future.set_exception(ValueError("its own"))
    future.exception()


def cancel(future: asyncio.Future[Any]) -> None:
    future.cancel()


ENDS = pytest.mark.parametrize("end", [succeed, fail, cancel])


def new() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@ENDS
async def test_what_is_done_is_not_waited_for(end: Callable[[asyncio.Future[Any]], None]) -> None:
    future = new()
    end(future)
    waiting = within(future, LONG)
    with pytest.raises(StopIteration) as caught:
        waiting.send(None)
    assert caught.value.value is True


@ENDS
async def test_what_ends_in_time_is_done_and_its_end_is_not_raised(
    end: Callable[[asyncio.Future[Any]], None],
) -> None:
    future = new()
    asyncio.get_running_loop().call_later(0.01, end, future)
    assert await within(future, LONG)
    assert future.done()


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.05])
async def test_what_does_not_goes_on(seconds: float) -> None:
    future = new()
    began = time.monotonic()
    assert not await within(future, seconds)
    assert seconds * 0.9 <= time.monotonic() - began < 5
    assert not future.done()


async def test_no_time_at_all_is_one_turn_of_the_loop() -> None:
    """As with `asyncio.wait`: what is ready by then counts."""
    future = new()
    asyncio.get_running_loop().call_soon(future.set_result, 1)
    assert await within(future, 0)


async def test_who_waits_may_be_cancelled_and_the_future_goes_on() -> None:
    future = new()
    waiting = asyncio.create_task(within(future, LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not future.done()
    future.set_result(1)


async def test_one_that_is_cancelled_as_it_ends_is_cancelled() -> None:
    future = new()
    waiting = asyncio.create_task(within(future, LONG))
    await asyncio.sleep(0)
    future.set_result(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_several_wait_for_one_each_for_its_own_time() -> None:
    future = new()
    waiting = [asyncio.create_task(within(future, seconds)) for seconds in (0.01, LONG, LONG)]
    await asyncio.sleep(0.1)
    future.set_result(1)
    assert await asyncio.gather(*waiting) == [False, True, True]


async def test_a_task_that_is_waited_for_runs_on() -> None:
    ended = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        ended.append(1)

    task = asyncio.create_task(work())
    assert not await within(task, 0.01)
    assert await within(task, LONG)
    assert ended == [1]


@pytest.mark.parametrize("seconds", [0.0, LONG])
async def test_nothing_of_it_remains(seconds: float) -> None:
    """A future that is waited for again and again gathers nothing."""
    future = new()
    waiting = asyncio.create_task(within(future, seconds))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert "cb=" not in repr(future)
