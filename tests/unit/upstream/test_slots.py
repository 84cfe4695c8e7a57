"""Slots: in order, none lost, none twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from gateway.upstream.slots import Slots


def free(slots: Slots) -> int:
    """How many slots are free; they stay so."""
    count = 0
    while slots.take():
        count += 1
    for _ in range(count):
        slots.give_back()
    return count


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not what():
            await asyncio.sleep(0)


async def test_there_are_as_many_as_there_are() -> None:
    slots = Slots(2)
    assert [slots.take() for _ in range(3)] == [True, True, False]
    slots.give_back()
    assert [slots.take() for _ in range(2)] == [True, False]


async def test_those_who_wait_get_theirs_in_order_and_before_those_who_come_later() -> None:
    slots, served = Slots(1), list[int]()

    async def wait(number: int) -> None:
        await slots.wait(5)
        served.append(number)

    assert slots.take()
    waiting = [asyncio.create_task(wait(number)) for number in range(4)]
    await asyncio.sleep(0)
    for count in range(1, 5):
        slots.give_back()
        assert not slots.take()  # it is another's already
        await until(lambda count=count: len(served) == count)  # type: ignore[misc]
    await asyncio.gather(*waiting)
    assert served == [0, 1, 2, 3]
    slots.give_back()
    assert free(slots) == 1


async def test_who_waited_too_long_or_left_takes_none() -> None:
    slots = Slots(1)
    assert slots.take()
    with pytest.raises(TimeoutError):
        await slots.wait(0.01)
    leaving = asyncio.create_task(slots.wait(5))
    staying = asyncio.create_task(slots.wait(5))
    await asyncio.sleep(0)
    leaving.cancel()
    slots.give_back()  # he has not left yet, but will
    await staying
    assert leaving.cancelled()
    slots.give_back()
    assert free(slots) == 1


async def test_a_slot_that_comes_as_its_taker_leaves_goes_to_the_next() -> None:
    slots = Slots(1)
    assert slots.take()
    leaving = asyncio.create_task(slots.wait(5))
    staying = asyncio.create_task(slots.wait(5))
    await asyncio.sleep(0)
    slots.give_back()
    leaving.cancel()
    await staying
    with pytest.raises(asyncio.CancelledError):
        await leaving
    slots.give_back()
    assert free(slots) == 1


@pytest.mark.parametrize("seed", range(5))
async def test_a_storm_of_waiters_who_leave_loses_none(seed: int) -> None:
    random, slots, busy, most = Random(seed), Slots(3), 0, 0

    async def use() -> None:
        nonlocal busy, most
        if not slots.take():
            await slots.wait(random.choice([0.0, 0.001, 5.0]))
        busy += 1
        most = max(most, busy)
        try:
            await asyncio.sleep(random.choice([0.0, 0.0005]))
        finally:
            busy -= 1
            slots.give_back()

    tasks = []
    for _ in range(400):
        tasks.append(asyncio.create_task(use()))
        if random.random() < 0.3:
            await asyncio.sleep(0)
        random.choice(tasks).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (busy, most, free(slots)) == (0, 3, 3)
    assert not slots._waiting
