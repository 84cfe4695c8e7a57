"""Tasks are read by whichever process claims them, as often as they should be, and settle once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from gateway.credits.terms import Conclusion
from gateway.upstream.client import SentUnknownError
from tests.integration.task_rig import QUOTE, TEAM, Rig, done, running, tasks_on


@pytest.fixture
async def rig(database_url: str) -> AsyncIterator[Rig]:
    async with tasks_on(database_url) as found:
        yield found


async def test_a_task_nobody_polls_settles_at_its_cost(rig: Rig) -> None:
    key = await rig.upstream_key()
    task, hold = await rig.task(key)
    process = await rig.process()
    async with rig.reconciling(process):
        await rig.until(lambda: rig.settled(hold))
    row = await rig.state(hold)
    assert (row.settled, row.estimated, row.flags) == (1_500_000, False, [])
    assert (await rig.stored(task)).credits_cost == 1_500_000
    value = process.metrics.registry.get_sample_value("gateway_tasks_settled_total", {"by": "reconciler"})
    assert value == 1


async def test_a_new_task_is_first_due_two_seconds_after_its_submit(rig: Rig) -> None:
    task, _ = await rig.task(await rig.upstream_key(), due=False)
    assert 1.5 < (await rig.stored(task)).next_in <= 2


async def test_two_processes_read_each_task_once(rig: Rig) -> None:
    rig.pixapi.react = running
    key = await rig.upstream_key()
    tasks = [(await rig.task(key))[0] for _ in range(40)]
    processes = [await rig.process(), await rig.process()]

    async def all_read() -> bool:
        return len(rig.pixapi.reads) == len(tasks)

    async with rig.reconciling(*processes):
        await rig.until(all_read)
    assert rig.pixapi.reads == Counter(tasks)


async def test_tasks_that_hang_or_fail_delay_no_other(rig: Rig) -> None:
    key = await rig.upstream_key()
    hanging, hung = await rig.task(key)
    failing, failed = await rig.task(key)
    released = asyncio.Event()

    async def react(task: str) -> tuple[int, str]:
        if task == hanging:
            await released.wait()
        if task == failing:
            raise SentUnknownError("the connection was lost")
        return await done(task)

    rig.pixapi.react = react
    others = [(await rig.task(key))[1] for _ in range(20)]
    async with rig.reconciling(await rig.process()):
        began = time.monotonic()
        await rig.until(lambda: rig.settled(*others))
        print(f"20 tasks beside a hanging one: {time.monotonic() - began:.2f} s")
        row = await rig.stored(failing)
        assert (row.failed_reads, row.ended_at, row.leased_until) == (1, None, None)
        assert 3 < row.next_in <= 5
        assert (await rig.state(failed)).state == (await rig.state(hung)).state == "held"
        released.set()
        await rig.until(lambda: rig.settled(hung))


@pytest.mark.parametrize("status", [404, 429, 500, 503])
async def test_an_error_is_never_a_verdict_and_is_forgotten_by_the_next_answer(rig: Rig, status: int) -> None:
    task, hold = await rig.task(await rig.upstream_key())
    answers = iter([status, 200])

    async def react(_: str) -> tuple[int, str]:
        return next(answers), '"status":"processing","error":{"code":"x","message":"x"}'

    rig.pixapi.react = react
    process = await rig.process()
    await process.reconciler.once()

    async def failures() -> int:
        return int((await rig.stored(task)).failed_reads)

    async def failed() -> bool:
        return await failures() == 1

    await rig.until(failed)
    row = await rig.stored(task)
    assert (row.status, bytes(row.body)) == ("submitted", b'{"id":"first"}')
    assert (await rig.state(hold)).state == "held"
    await rig.run("UPDATE tasks SET next_read_at = now(), read_at = now() - interval '1 minute'")
    after = await rig.process()  # another one, which does not know of the key's rest yet
    await rig.run("UPDATE upstream_keys SET reads_rest_until = NULL")
    after = await rig.process()
    await after.reconciler.once()

    async def forgotten() -> bool:
        return await failures() == 0

    await rig.until(forgotten)
    assert (await rig.stored(task)).status == "processing"


async def test_a_killed_process_leaves_its_claims_to_others(rig: Rig) -> None:
    task, hold = await rig.task(await rig.upstream_key())
    dead = await rig.process()
    (claimed,) = await dead.due.claim({"acct": 5}, lease=0.5)
    assert (claimed.id, claimed.account, claimed.quote) == (task, "acct", QUOTE)
    alive = await rig.process()
    assert await alive.due.claim({"acct": 5}, lease=0.5) == []
    async with rig.reconciling(alive):
        await rig.until(lambda: rig.settled(hold))


@pytest.mark.long
async def test_reads_keep_to_the_rate_of_a_key_and_polls_get_the_last_state(rig: Rig) -> None:
    rig.pixapi.react = running
    key = await rig.upstream_key()
    tasks = [(await rig.task(key))[0] for _ in range(30)]
    process = await rig.process(reads_per_second=5)
    seen: Counter[str] = Counter()
    async with rig.reconciling(process):
        ends = time.monotonic() + 2.5
        while time.monotonic() < ends:
            for task in tasks[-5:]:
                seen[(await process.reader.read(TEAM, task, "req")).cache] += 1
            await asyncio.sleep(0.05)
    for start in rig.pixapi.at:
        assert sum(start <= at < start + 0.95 for at in rig.pixapi.at) <= 5
    assert len(rig.pixapi.at) >= 10
    assert seen["stale"] > 0
    print(f"{len(rig.pixapi.at)} reads of at most 15 in 2.5 s; polls got {dict(seen)}")
    assert sum(count for task, count in rig.pixapi.reads.items() if task not in tasks[-5:]) >= 5


@pytest.mark.long
async def test_keys_of_an_account_read_together_and_a_resting_one_does_not(rig: Rig) -> None:
    rig.pixapi.react = running
    own, _ = await rig.upstream_key(), await rig.upstream_key()
    for _ in range(20):
        await rig.task(own)

    async def reads(count: int) -> None:
        async def made() -> bool:
            return len(rig.pixapi.at) >= count

        await rig.until(made)

    await (await rig.process(reads_per_second=5)).reconciler.once()
    await reads(10)
    await rig.run(
        "UPDATE upstream_keys SET reads_rest_until = now() + interval '1 hour' WHERE id = :id", id=own
    )
    after = await rig.process(reads_per_second=5)
    async with rig.reconciling(after):
        await reads(20)
    for start in rig.pixapi.at[10:]:
        assert sum(start <= at < start + 0.95 for at in rig.pixapi.at) <= 5


async def test_polls_and_reconciler_share_readings(rig: Rig) -> None:
    rig.pixapi.react = running
    task, _ = await rig.task(await rig.upstream_key())
    one, other = await rig.process(), await rig.process()
    assert (await one.reader.read(TEAM, task, "req")).cache == "miss"
    assert (await rig.stored(task)).next_in > 1  # the poll counts as the read that was due
    assert (await other.reader.read(TEAM, task, "req")).cache == "hit"
    await rig.run("UPDATE tasks SET next_read_at = now()")
    (claimed,) = await one.due.claim({"acct": 1}, lease=20)
    assert not await one.reader.read_due(claimed, "req")  # read by the poll just now
    assert rig.pixapi.reads[task] == 1
    await one.due.give_back([task])
    assert [again.id for again in await other.due.claim({"acct": 1}, lease=20)] == [task]


async def test_a_client_and_two_reconcilers_settle_once(rig: Rig) -> None:
    key = await rig.upstream_key()
    made = [await rig.task(key) for _ in range(10)]
    one, other = await rig.process(), await rig.process()
    async with rig.reconciling(one, other):
        await asyncio.gather(*(p.reader.read(TEAM, task, "req") for task, _ in made for p in (one, other)))
        await rig.until(lambda: rig.settled(*(hold for _, hold in made)))
    entries = await rig.run("SELECT hold_id, kind, count(*) FROM ledger_entries GROUP BY 1, 2")
    assert {row.count for row in entries} == {1}
    assert Counter(row.kind for row in entries) == {"place": 10, "settle": 10}
    counted = [
        process.metrics.registry.get_sample_value("gateway_tasks_settled_total", {"by": by}) or 0
        for process in (one, other)
        for by in ("client", "reconciler")
    ]
    assert sum(counted) == 10


@pytest.mark.parametrize("cost", ["null", "-1", "NaN", '"much"', "1e400"])
async def test_an_odd_cost_settles_at_the_quote_flagged_and_counted(rig: Rig, cost: str) -> None:
    async def react(_: str) -> tuple[int, str]:
        return 200, f'"status":"completed","credits_cost":{cost}'

    rig.pixapi.react = react
    _, hold = await rig.task(await rig.upstream_key())
    process = await rig.process()
    await process.reconciler.once()
    await rig.until(lambda: rig.settled(hold))
    row = await rig.state(hold)
    assert (row.settled, row.estimated, row.flags) == (QUOTE, True, ["odd_cost"])

    async def counted() -> bool:
        return process.metrics.registry.get_sample_value("gateway_odd_costs_total") == 1

    await rig.until(counted)


async def test_a_task_whose_hold_ended_without_it_is_read_no_more(rig: Rig) -> None:
    rig.pixapi.react = running
    task, hold = await rig.task(await rig.upstream_key())
    await rig.ledger.end(hold, Conclusion(state="released", reason="an admin"))
    process = await rig.process()
    assert await process.due.claim({"acct": 5}, lease=20) == []
    assert (await rig.stored(task)).next_in > 10**9
    assert await process.due.backlog() == []
    assert rig.pixapi.reads[task] == 0


async def test_the_backlog_by_account(rig: Rig) -> None:
    busy, calm = await rig.upstream_key("busy"), await rig.upstream_key("calm")
    for _ in range(3):
        await rig.task(busy)
    await rig.task(calm, due=False)
    await rig.run(
        "UPDATE tasks SET next_read_at = now() - interval '7 s' WHERE upstream_key_id = :id", id=busy
    )
    process = await rig.process()
    await process.due.claim({"busy": 1}, lease=20)
    found = {one.account: one for one in await process.due.backlog()}
    assert (found["busy"].open, found["busy"].due) == (3, 2)
    assert 7 <= found["busy"].late < 9
    assert (found["calm"].open, found["calm"].due, found["calm"].late) == (1, 0, 0)


async def test_the_longest_unread_are_claimed_first(rig: Rig) -> None:
    key = await rig.upstream_key()
    tasks = [(await rig.task(key))[0] for _ in range(4)]
    for age, task in zip((5, 30, 10, 20), tasks, strict=True):
        await rig.run(
            "UPDATE tasks SET read_at = now() - :age WHERE id = :id", id=task, age=timedelta(seconds=age)
        )
    due = (await rig.process()).due
    order = [(await due.claim({"acct": 1}, lease=20))[0].id for _ in tasks]
    assert order == [tasks[1], tasks[3], tasks[2], tasks[0]]
