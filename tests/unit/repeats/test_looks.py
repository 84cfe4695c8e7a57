"""Waits for calls of other processes share one look, hear at once, and outlast a look that fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import pytest

from gateway import errors
from gateway.repeats import looks as module
from gateway.repeats.looks import Looks, Wait
from gateway.repeats.records import Record, Records


class Asked(Records):
    """Records in memory that note each look."""

    def __init__(self) -> None:
        self.there: dict[UUID, Record] = {}
        self.looks: list[set[UUID]] = []
        self.down = False
        self.broken = False

    async def by_holds(self, hold_ids: Sequence[UUID]) -> dict[UUID, Record]:
        self.looks.append(set(hold_ids))
        if self.down:
            raise errors.dependency_unavailable("down")
        if self.broken:
            raise RuntimeError("a defect")
        await asyncio.sleep(0)
        return {hold_id: self.there[hold_id] for hold_id in hold_ids if hold_id in self.there}


def record(number: int, state: str = "running") -> Record:
    return Record(
        hold_id=UUID(int=number),
        fingerprint=b"f",
        state=state,
        hold="held",
        model="m",
        task_id=None,
        status=None,
        headers=None,
        body=None,
        path=None,
        ended_ago=0.0,
    )


@pytest.fixture
def records() -> Asked:
    return Asked()


@pytest.fixture
async def looks(records: Asked) -> AsyncIterator[Looks]:
    found = Looks(records)
    yield found
    await found.close()


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.005)


async def ended(looks: Looks, number: int) -> str | None:
    """Waits for the call; its state then, None when it has gone."""
    with looks.wait(record(number)) as wait:
        while wait.record is not None and wait.record.state == "running":
            await wait.next(30)
        return None if wait.record is None else wait.record.state


async def test_a_thousand_waits_are_one_look_a_second(looks: Looks, records: Asked) -> None:
    records.there = {UUID(int=n): record(n) for n in range(100)}
    began = time.monotonic()
    waits = [asyncio.create_task(ended(looks, n % 100)) for n in range(1000)]
    await until(lambda: len(records.looks) >= 2)
    assert len(records.looks) <= (time.monotonic() - began) / module.LOOK_SECONDS
    assert all(look == set(records.there) for look in records.looks)
    records.there = {UUID(int=n): record(n, "ended") for n in range(99)}
    found = await asyncio.wait_for(asyncio.gather(*waits), 5)
    assert (found.count("ended"), found.count(None)) == (990, 10)
    assert len(records.looks) <= (time.monotonic() - began) / module.LOOK_SECONDS


async def test_what_is_heard_of_is_looked_for_at_once(looks: Looks, records: Asked) -> None:
    records.there = {UUID(int=n): record(n) for n in (1, 2)}
    waits = [asyncio.create_task(ended(looks, n)) for n in (1, 1, 2)]
    await asyncio.sleep(0)
    records.there[UUID(int=1)] = record(1, "ended")
    began = time.monotonic()
    looks.heard(UUID(int=1))
    looks.heard(UUID(int=77))  # nobody waits for it
    assert await asyncio.gather(*waits[:2]) == ["ended", "ended"]
    assert time.monotonic() - began < 0.5
    assert records.looks == [{UUID(int=1)}]
    assert not waits[2].done()
    del records.there[UUID(int=2)]
    looks.heard(UUID(int=2))
    assert await waits[2] is None


@pytest.mark.parametrize("fault", ["down", "broken"])
async def test_a_look_that_fails_says_nothing(
    looks: Looks, records: Asked, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    setattr(records, fault, True)
    waiting = asyncio.create_task(ended(looks, 1))
    await until(lambda: len(records.looks) > 2)
    assert not waiting.done()
    records.there[UUID(int=1)] = record(1, "ended")
    setattr(records, fault, False)
    assert await asyncio.wait_for(waiting, 5) == "ended"


async def test_nothing_is_asked_while_nobody_waits(
    looks: Looks, records: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    for _ in range(2):  # it begins anew
        records.there = {UUID(int=1): record(1, "ended")}
        assert await asyncio.wait_for(ended(looks, 1), 5) == "ended"
        await until(lambda: len(asyncio.all_tasks()) == 1)
    asked = len(records.looks)
    await asyncio.sleep(0.05)
    assert len(records.looks) == asked == 2


async def test_a_change_between_two_waits_is_not_missed(looks: Looks, records: Asked) -> None:
    records.there = {UUID(int=1): record(1)}
    with looks.wait(record(1)) as wait:
        looks.heard(UUID(int=1))
        await until(lambda: len(records.looks) == 1)
        async with asyncio.timeout(0.5):
            await wait.next(30)
        assert wait.record == records.there[UUID(int=1)]


async def test_close_ends_the_looks_and_every_wait(records: Asked) -> None:
    looks = Looks(records)
    async with AsyncExitStack() as stack:
        waits: list[Wait] = [stack.enter_context(looks.wait(record(n))) for n in range(3)]
        nexts = [asyncio.create_task(wait.next(30)) for wait in waits]
        await asyncio.sleep(0)
        await looks.close()
        await asyncio.wait_for(asyncio.gather(*nexts), 1)
        assert looks.closed
        with looks.wait(record(9)):  # begins none any more
            assert len(asyncio.all_tasks()) == 1
    assert records.looks == []
