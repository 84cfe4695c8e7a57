"""Group commit without a database: who goes together, what is repeated, and who fails."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest

from gateway import errors
from gateway.credits.batch import LARGEST, Batcher
from gateway.db.engine import LockedError
from gateway.errors import GatewayError


class Sink:
    """Answers ten times the item; holds every batch until it is let go, and fails as told."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.poison: set[int] = set()
        self.gone = 0

    async def __call__(self, items: Sequence[int], patient: bool = True) -> list[int]:
        self.sent.append(list(items))
        await self.gate.wait()
        if self.gone:
            self.gone -= 1
            raise errors.dependency_unavailable("gone")
        if self.poison.intersection(items):
            raise ValueError("poison")
        return [item * 10 for item in items]


def batcher(send: Sink) -> Batcher[int, int]:
    return Batcher(send, ident=lambda item: item)


async def test_the_first_goes_at_once_and_the_others_together() -> None:
    sink = Sink()
    sink.gate.clear()
    group = batcher(sink)
    first = asyncio.create_task(group.submit(0))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(group.submit(item)) for item in range(1, LARGEST + 11)]
    await asyncio.sleep(0.01)
    assert sink.sent == [[0]]
    sink.gate.set()
    assert await asyncio.gather(first, *others) == [item * 10 for item in range(LARGEST + 11)]
    assert [len(batch) for batch in sink.sent] == [1, LARGEST, 10]
    assert group.largest_seen == LARGEST


async def test_one_that_comes_after_a_rest_is_sent() -> None:
    group = batcher(Sink())
    for item in range(3):
        assert await group.submit(item) == item * 10
        await asyncio.sleep(0.01)


async def test_equal_ids_never_share_a_batch_and_keep_their_order() -> None:
    sink = Sink()
    sink.gate.clear()
    group = batcher(sink)
    tasks = [asyncio.create_task(group.submit(item)) for item in (9, 1, 2, 1, 3, 1, 2)]
    await asyncio.sleep(0.01)
    sink.gate.set()
    assert await asyncio.gather(*tasks) == [90, 10, 20, 10, 30, 10, 20]
    assert sink.sent[-2:] == [[1, 2], [1]]
    assert all(len(set(batch)) == len(batch) for batch in sink.sent)


@pytest.mark.parametrize("poison", [{0}, {63}, {5, 6, 40}, set(range(64))])
async def test_poisoned_items_fail_alone(poison: set[int]) -> None:
    sink = Sink()
    sink.poison = poison
    group = batcher(sink)
    found = await asyncio.gather(*(group.submit(item) for item in range(64)), return_exceptions=True)
    for item, result in enumerate(found):
        assert isinstance(result, ValueError) if item in poison else result == item * 10
    assert await group.submit(100) == 1000


async def test_a_lost_answer_is_asked_for_once_more() -> None:
    sink = Sink()
    sink.gone = 1
    assert await batcher(sink).submit(4) == 40
    assert sink.sent == [[4], [4]]


async def test_a_database_that_is_gone_fails_the_whole_batch_and_not_the_next() -> None:
    sink = Sink()
    sink.gone = 2
    group = batcher(sink)
    found = await asyncio.gather(*(group.submit(item) for item in range(5)), return_exceptions=True)
    assert [isinstance(one, GatewayError) for one in found] == [True] * 5
    assert len(sink.sent) == 2  # never split: nothing is wrong with the items
    assert await group.submit(1) == 10


async def test_a_caller_that_leaves_leaves_its_item_in() -> None:
    sink = Sink()
    sink.gate.clear()
    group = batcher(sink)
    tasks = [asyncio.create_task(group.submit(item)) for item in range(4)]
    await asyncio.sleep(0.01)
    tasks[2].cancel()
    sink.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[2], asyncio.CancelledError)
    assert [found[0], found[1], found[3]] == [0, 10, 30]
    assert sorted(item for batch in sink.sent for item in batch) == [0, 1, 2, 3]


async def test_the_future_outlives_its_caller() -> None:
    sink = Sink()
    sink.gate.clear()
    group = batcher(sink)
    future = group.put(7)
    waiting = asyncio.create_task(asyncio.wait_for(asyncio.shield(future), 0.01))
    with pytest.raises(TimeoutError):
        await waiting
    sink.gate.set()
    assert await future == 70


async def test_when_the_loop_ends_nobody_waits_for_ever() -> None:
    sink = Sink()
    sink.gate.clear()
    group = batcher(sink)
    futures = [group.put(item) for item in range(LARGEST + 5)]
    await asyncio.sleep(0.01)
    assert group._common.leader is not None
    group._common.leader.cancel()
    found = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in found)
    sink.gate.set()
    assert await group.submit(3) == 30


# Locks -------------------------------------------------------------------------------------------------------


class LockedSink(Sink):
    """Whatever has an item of the locked ten waits in vain: for a tenth of a second, for one when it is patient."""

    def __init__(self, locked: int) -> None:
        super().__init__()
        self.locked = locked
        self.waits: list[bool] = []

    async def __call__(self, items: Sequence[int], patient: bool = True) -> list[int]:
        self.sent.append(list(items))
        if any(item // 10 == self.locked for item in items):
            self.waits.append(patient)
            await asyncio.sleep(0.2 if patient else 0.02)
            raise LockedError
        return [item * 10 for item in items]


def by_tens(sink: Sink) -> Batcher[int, int]:
    return Batcher(sink, ident=lambda item: item, lane=lambda item: item // 10)


async def test_a_lock_fails_its_own_lane_alone_and_then_delays_nobody() -> None:
    sink = LockedSink(locked=3)
    group = by_tens(sink)
    futures = {item: group.put(item) for item in range(60)}
    free = [future for item, future in futures.items() if item // 10 != 3]
    async with asyncio.timeout(0.15):  # nobody waits while the locked lane does
        assert await asyncio.gather(*free) == [item * 10 for item in range(60) if item // 10 != 3]
    assert not any(futures[item].done() for item in range(30, 40))
    late = group.put(35)
    found = await asyncio.gather(*(futures[item] for item in range(30, 40)), late, return_exceptions=True)
    assert all(isinstance(one, LockedError) for one in found)
    # Together, then alone; who came while it waited alone has not waited again.
    assert sink.waits == [False, True]
    blocked = group.put(31)
    await asyncio.sleep(0.01)
    assert sink.waits == [False, True, True]
    assert await asyncio.wait_for(group.submit(100), 0.1) == 1000
    with pytest.raises(LockedError):
        await blocked


async def test_a_lane_that_is_free_again_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.credits.batch.APART_SECONDS", 0.05)
    sink = LockedSink(locked=3)
    group = by_tens(sink)
    with pytest.raises(LockedError):
        await group.submit(30)
    sink.locked = -1
    await asyncio.sleep(0.06)
    sink.sent.clear()
    await asyncio.gather(group.submit(1), group.submit(32), group.submit(2))
    assert sorted(item for batch in sink.sent for item in batch) == [1, 2, 32]
    assert len(sink.sent) <= 2


async def test_a_lane_that_waited_for_nothing_stays_with_the_others() -> None:
    sink = LockedSink(locked=3)
    group = by_tens(sink)
    futures = [group.put(item) for item in (1, 20, 30)]
    await asyncio.gather(*futures, return_exceptions=True)
    sink.sent.clear()
    await asyncio.gather(group.submit(1), group.submit(20), group.submit(2))
    assert len(sink.sent) <= 2


async def test_nothing_is_kept_of_a_lane_that_was_locked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teams come and go: what a lock has cost one of them is forgotten, whether it asks again or not."""
    monkeypatch.setattr("gateway.credits.batch.APART_SECONDS", 0.05)
    sink = LockedSink(locked=3)
    group = by_tens(sink)
    found = await asyncio.gather(*(group.submit(item) for item in (1, 20, 30, 31)), return_exceptions=True)
    assert [isinstance(one, LockedError) for one in found] == [False, False, True, True]
    assert list(group._apart) == [3]  # the others waited for nothing
    with pytest.raises(LockedError):
        await group.submit(32)
    await asyncio.sleep(0.1)
    assert not group._apart


async def test_nothing_either_of_one_that_is_served_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.credits.batch.APART_SECONDS", 0.05)
    sink = LockedSink(locked=3)
    group = by_tens(sink)
    with pytest.raises(LockedError):
        await group.submit(30)
    sink.locked = -1
    sink.gate.clear()

    async def slow(items: Sequence[int], patient: bool) -> list[int]:
        await sink.gate.wait()
        return [item * 10 for item in items]

    group._send = slow
    late = group.put(31)
    await asyncio.sleep(0.1)
    assert list(group._apart) == [3]
    sink.gate.set()
    assert await late == 310
    assert not group._apart


async def test_of_items_that_name_no_lane_nothing_is_kept() -> None:
    sink = LockedSink(locked=0)
    group: Batcher[int, int] = Batcher(sink, ident=lambda item: item)
    with pytest.raises(LockedError):
        await group.submit(1)
    assert not group._apart


async def test_who_has_left_is_not_missed_when_its_batch_fails() -> None:
    """An error that nobody takes is no line in the log."""
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    sink = Sink()
    sink.gone = 2
    group = batcher(sink)
    group.put(1)
    await asyncio.sleep(0.01)
    gc.collect()
    assert not complaints
