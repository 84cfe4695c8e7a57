"""The reconciler's loop: no more reads than there is room for, none of them waiting for another."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping, Sequence
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.clock import Clock
from gateway.pool.pool import Pool, UpstreamKey
from gateway.pool.read_budget import ReadBudget, ReadFor, Reserve
from gateway.tasks.due import Backlog, DueTasks
from gateway.tasks.reader import TaskReader
from gateway.tasks.reconciler import (
    AFTER_TROUBLE,
    IDLE,
    MOST_READS,
    TICK,
    URGENT,
    Reconciler,
    reserve_for,
)
from gateway.tasks.registry import TaskRecord
from gateway.tasks.schedule import LONGEST, SHORTEST, Pace, Progress, Usual, next_read
from gateway.telemetry import Metrics
from tests.fakes.clock import FakeClock


def record(task: str, account: str = "a") -> TaskRecord:
    return TaskRecord(
        id=task,
        team_id=UUID(int=1),
        hold_id=UUID(int=2),
        upstream_key_id=UUID(int=3),
        account=account,
        quote=1,
        status="submitted",
        body=b"{}",
        ended=False,
    )


class FakeDueTasks(DueTasks):
    """Due tasks in memory; a claim takes them out."""

    def __init__(self, *due: TaskRecord) -> None:
        self.due = list(due)
        self.rooms: list[dict[str, int]] = []
        self.given_back: list[str] = []
        self.backlogs: list[Backlog] = []
        self.failure: Exception | None = None

    async def claim(self, room: Mapping[str, int], lease: float) -> list[TaskRecord]:
        if self.failure is not None:
            raise self.failure
        self.rooms.append(dict(room))
        found = [
            one
            for account, most in room.items()
            for one in [due for due in self.due if due.account == account][:most]
        ]
        self.due = [one for one in self.due if one not in found]
        return found

    async def give_back(self, task_ids: Sequence[str]) -> None:
        self.given_back += task_ids

    async def backlog(self) -> list[Backlog]:
        return self.backlogs


class FakeReader(TaskReader):
    """Reads at once, but for tasks named `hang` or `crash` something; `was_read` is what it answers."""

    def __init__(self) -> None:
        self.read_tasks: list[str] = []
        self.was_read = True

    async def read_due(self, record: TaskRecord, request_id: str) -> bool:
        if record.id.startswith("hang"):
            await asyncio.Event().wait()
        if record.id.startswith("crash"):
            raise RuntimeError(record.id)
        if record.id.startswith("gone"):
            raise errors.dependency_unavailable("gone")
        self.read_tasks.append(record.id)
        return self.was_read


class FakePool(Pool):
    """So much room for each account."""

    def __init__(self, clock: Clock, **room: int) -> None:
        self.room = room
        self.reserved: dict[str, Reserve] = {}
        self.opens_in = 0.1

    def read_room(self) -> dict[str, int]:
        return dict(self.room)

    def reads_open_in(self) -> float:
        return self.opens_in

    def readers(self, account: str) -> list[UpstreamKey]:
        return [UpstreamKey(UUID(int=3), "one", account, "sk", 1, None, "active")]

    def reserve_reads(self, account: str, reserve: Reserve) -> None:
        self.reserved[account] = reserve


class Rig:
    def __init__(self, *due: TaskRecord, **room: int) -> None:
        self.clock = FakeClock()
        self.due = FakeDueTasks(*due)
        self.reader = FakeReader()
        self.pool = FakePool(self.clock, **room)
        self.pace = Pace()
        self.metrics = Metrics()
        self.reconciler = Reconciler(
            self.due, self.reader, self.pool, self.pace, metrics=self.metrics, clock=self.clock
        )

    def gauge(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_it_claims_what_there_is_room_for_and_comes_back_when_there_is_more() -> None:
    rig = Rig(*(record(f"t{n}") for n in range(7)), record("other", "b"), a=5, b=2)
    assert await rig.reconciler.once() == IDLE  # less was due than there was room for
    await turns()
    assert sorted(rig.reader.read_tasks) == ["other", "t0", "t1", "t2", "t3", "t4"]
    rig.pool.room = {"a": 2}
    assert await rig.reconciler.once() == 0.1
    rig.pool.room, rig.pool.opens_in = {"a": 0}, 7.0
    assert await rig.reconciler.once() == TICK
    assert rig.due.rooms == [{"b": 2, "a": 5}, {"a": 2}]


async def test_reads_that_hang_or_fail_delay_no_other() -> None:
    rig = Rig(record("hang"), record("crash"), record("gone"), record("t1"), a=9)
    await rig.reconciler.once()
    await turns()
    rig.due.due.append(record("t2"))
    await rig.reconciler.once()
    await turns()
    assert rig.reader.read_tasks == ["t1", "t2"]
    await rig.reconciler.close()
    assert rig.due.given_back == ["hang"]


async def test_no_more_reads_are_under_way_than_may_be_and_accounts_share_them() -> None:
    rig = Rig(*(record(f"hang{n}") for n in range(500)), record("hang-b", "b"), a=500, b=1)
    await rig.reconciler.once()
    assert rig.due.rooms == [{"b": 1, "a": MOST_READS - 1}]
    await rig.reconciler.once()
    assert len(rig.due.rooms) == 1
    await rig.reconciler.close()
    assert len(rig.due.given_back) == MOST_READS


async def test_a_task_that_was_not_read_is_given_back() -> None:
    rig = Rig(record("t1"), a=1)
    rig.reader.was_read = False
    await rig.reconciler.once()
    await turns()
    assert rig.due.given_back == ["t1"]


@pytest.mark.parametrize("failure", [errors.dependency_unavailable("down"), RuntimeError("a defect")])
async def test_trouble_ends_no_loop(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(record("t1"), a=1)
    rig.due.failure = failure
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        pauses.append(seconds)
        rig.due.failure = None
        await sleep(0)

    monkeypatch.setattr("gateway.tasks.reconciler.asyncio.sleep", slept)
    loop = asyncio.create_task(rig.reconciler.run())
    while not rig.reader.read_tasks:
        await sleep(0)
    loop.cancel()
    assert pauses[0] == AFTER_TROUBLE


async def test_a_look_at_the_backlog_sets_pace_reserve_and_gauges() -> None:
    rig = Rig(a=1)
    rig.due.backlogs = [
        Backlog(account="a", open=250, due=3, late=4.0, unread=URGENT),
        Backlog(account="b", open=10, due=1, late=1.0, unread=3.0),
        Backlog(account="c", open=10, due=0, late=0.0, unread=0.0),
    ]
    await rig.reconciler.once()
    assert rig.pool.reserved == {"a": Reserve.ALL, "b": Reserve.HALF, "c": Reserve.NOTHING}
    assert rig.gauge("gateway_open_tasks") == 270
    assert rig.gauge("gateway_reconciler_lag_seconds") == 4
    assert rig.gauge("gateway_reconciler_stretched") == 2
    assert rig.pace.next_read("veo", "a", 2) == 2 * SHORTEST
    assert rig.pace.next_read("veo", "b", 2) == SHORTEST
    rig.due.backlogs = []
    rig.clock.forward(2)
    await rig.reconciler.once()
    assert (rig.gauge("gateway_open_tasks"), rig.gauge("gateway_reconciler_stretched")) == (0, 1)


@given(st.integers(0, 10**6), st.floats(0, 10**6))
def test_polls_are_kept_out_only_where_tasks_wait(due: int, unread: float) -> None:
    reserve = reserve_for(Backlog(account="a", open=due, due=due, late=0.0, unread=unread))
    assert (reserve is Reserve.NOTHING) == (due == 0)
    assert (reserve is Reserve.ALL) == (due > 0 and unread >= URGENT)


@pytest.mark.parametrize("seed", range(4))
def test_as_many_tasks_as_promised_are_each_read_in_time_whatever_their_models(seed: int) -> None:
    """The schedule, the budget of one key and the order of claims together, for ten simulated minutes."""
    random, rate = Random(seed), 5.0
    tasks = int(LONGEST * rate)
    usual = [random.choice([None, Usual(6), Usual(60, 20), Usual(300)]) for _ in range(tasks)]
    born = [random.uniform(0, 30) for _ in range(tasks)]
    last_read, next_at = list(born), [at + SHORTEST for at in born]
    budget, longest, now = ReadBudget(rate), 0.0, 0.0
    while now < 600:
        due = [(last_read[n], n) for n in range(tasks) if next_at[n] <= now]
        heapq.heapify(due)
        while due and budget.take(now, ReadFor.DUE):
            _, n = heapq.heappop(due)
            longest = max(longest, now - last_read[n])
            last_read[n] = now
            next_at[n] = now + next_read(Progress(age=now - born[n], usual=usual[n]))
        now += 0.05
    print(f"the longest wait for a read: {longest:.1f} s")
    assert longest <= 30
