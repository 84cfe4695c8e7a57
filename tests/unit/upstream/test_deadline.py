"""A deadline ends what is awaited within, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

import pytest

from gateway.upstream.deadline import Deadline


async def within(seconds: float, what: Awaitable[None]) -> None:
    with Deadline(seconds):
        await what


async def stubborn() -> None:
    """Answers being cancelled with a failure of its own."""
    try:
        await asyncio.sleep(5)
    except asyncio.CancelledError:
        raise KeyError from None


def cancels_wanted() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_what_is_done_in_time_is_not_disturbed() -> None:
    await within(0.005, asyncio.sleep(0))
    await asyncio.sleep(0.01)
    assert cancels_wanted() == 0


async def test_what_takes_too_long_is_ended_and_who_asked_goes_on() -> None:
    asked = asyncio.create_task(asyncio.sleep(5))
    with pytest.raises(TimeoutError):
        await within(0.005, asked)
    assert asked.cancelled()
    await asyncio.sleep(0.01)
    assert cancels_wanted() == 0


async def test_another_failure_stays_what_it_is() -> None:
    with pytest.raises(KeyError):
        await within(0.005, stubborn())
    assert cancels_wanted() == 0


async def test_of_two_the_first_counts() -> None:
    with pytest.raises(TimeoutError):
        await within(0.005, within(5, asyncio.sleep(5)))
    with Deadline(5):
        with pytest.raises(TimeoutError):
            await within(0.005, asyncio.sleep(5))
        await asyncio.sleep(0.01)


async def test_who_is_cancelled_is_cancelled() -> None:
    task = asyncio.create_task(within(5, asyncio.sleep(5)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_who_is_cancelled_as_the_time_is_up_is_cancelled(cancelled_first: bool) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(within(0.01, asyncio.sleep(5)))
    if cancelled_first:
        loop.call_later(0.009, task.cancel)
    await asyncio.sleep(0)
    if not cancelled_first:
        loop.call_later(0.01, task.cancel)
    time.sleep(0.02)  # so both come in one turn of the loop
    with pytest.raises(asyncio.CancelledError):
        await task
