"""Holds past their time, on a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from gateway.credits.aging import Aged, Ages, Aging
from gateway.credits.amount import MICRO
from gateway.credits.terms import Conclusion
from tests.integration.task_rig import QUOTE, Rig, done, running, tasks_on


@pytest.fixture
async def rig(database_url: str) -> AsyncIterator[Rig]:
    async with tasks_on(database_url) as found:
        yield found


AGES = Ages(longest_call=600, task_max_age=3600, settle_unknown_after=7200)


async def _backdate(rig: Rig, hold: UUID, seconds: float) -> None:
    await rig.run(
        "UPDATE holds SET placed_at = placed_at - :by WHERE id = :id", id=hold, by=timedelta(seconds=seconds)
    )


async def test_a_hold_whose_process_ended_becomes_unknown_and_later_settles_at_its_quote(rig: Rig) -> None:
    (old, _), (young, _) = await rig.hold(), await rig.hold()
    _, with_task = await rig.task(await rig.upstream_key())
    for hold, seconds in ((old, 601), (young, 590), (with_task, 3599)):
        await _backdate(rig, hold, seconds)
    aging = Aging(rig.database, AGES)
    assert await aging.once() == Aged(unknown=1, settled=0)
    row = await rig.state(old)
    assert (row.state, row.reason, row.ended_at) == ("unknown", "process_ended", None)
    assert row.unknown_at is not None
    assert (await rig.state(young)).state == (await rig.state(with_task)).state == "held"
    assert await aging.once() == Aged(0, 0)

    await _backdate(rig, old, 86_400)  # it is the time of being unknown that counts
    await rig.run(
        "UPDATE holds SET unknown_at = now() - :by WHERE id = :id", id=old, by=timedelta(seconds=7190)
    )
    assert await aging.once() == Aged(0, 0)
    await rig.run(
        "UPDATE holds SET unknown_at = now() - :by WHERE id = :id", id=old, by=timedelta(seconds=7201)
    )
    assert await aging.once() == Aged(unknown=0, settled=1)
    row = await rig.state(old)
    assert (row.state, row.settled, row.estimated, row.flags) == ("settled", QUOTE, True, ["aged"])
    assert row.reason == "unknown_too_long: process_ended"
    used = await rig.run("SELECT sum(credits) AS credits, sum(failed) AS failed FROM usage_buckets")
    assert (used[0].credits, used[0].failed) == (QUOTE, 0)


async def test_the_true_end_still_counts_for_a_hold_that_was_given_up_too_early(rig: Rig) -> None:
    hold, _ = await rig.hold()
    await _backdate(rig, hold, 601)
    await Aging(rig.database, AGES).once()
    ended = await rig.ledger.end(hold, Conclusion(state="settled", settled=MICRO))
    assert ended.changed
    assert (await rig.state(hold)).settled == MICRO


async def test_an_endless_task_makes_its_hold_unknown_is_read_slowly_and_settles_when_it_ends(
    rig: Rig,
) -> None:
    rig.pixapi.react = running
    task, hold = await rig.task(await rig.upstream_key())
    await rig.run("UPDATE tasks SET created_at = now() - interval '25 hours'")
    process = await rig.process()
    await process.reconciler.once()

    async def put_off() -> bool:
        return bool((await rig.stored(task)).next_in > 500)

    await rig.until(put_off)
    assert await Aging(rig.database, AGES).once() == Aged(unknown=1, settled=0)
    row = await rig.state(hold)
    assert (row.state, row.reason) == ("unknown", "task_too_old")
    await rig.run("UPDATE tasks SET next_read_at = now(), read_at = now() - interval '10 minutes'")
    rig.pixapi.react = done
    late = await rig.process()
    await late.reconciler.once()
    await rig.until(lambda: rig.settled(hold))
    assert (await rig.state(hold)).settled == 1_500_000


async def test_a_hold_bound_to_a_task_that_is_another_holds_is_abandoned(rig: Rig) -> None:
    task, _ = await rig.task(await rig.upstream_key())
    hold, _ = await rig.hold()
    await rig.run("UPDATE holds SET task_id = :task WHERE id = :id", task=task, id=hold)
    await _backdate(rig, hold, 601)
    assert await Aging(rig.database, AGES).once() == Aged(unknown=1, settled=0)


async def test_many_holds_age_in_two_processes_at_once_and_each_once(rig: Rig) -> None:
    held = [(await rig.hold())[0] for _ in range(150)]
    await rig.run("UPDATE holds SET placed_at = now() - interval '1 hour'")
    aging = [Aging(rig.database, AGES) for _ in range(2)]
    found = await asyncio.gather(*(one.once() for one in aging))
    left = await aging[0].once()  # what the other had locked
    assert sum(one.unknown for one in (*found, left)) == len(held)
    await rig.run("UPDATE holds SET unknown_at = now() - interval '1 day'")
    found = await asyncio.gather(*(one.once() for one in aging))
    left = await aging[0].once()
    assert sum(one.settled for one in (*found, left)) == len(held)
    used = await rig.run("SELECT sum(credits) AS credits FROM usage_buckets")
    assert used[0].credits == QUOTE * len(held)
