"""Several processes read one Pixapi as if they were one: agreed in Postgres, whatever becomes of Redis."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from gateway.tasks.reading import Reading
from tests.integration.task_rig import TEAM, Process, Rig, running, tasks_on

# Reads arrive when they do; the instant each was allowed at is the database's.
NOTE_SLOTS = """
CREATE TABLE taken (at timestamptz NOT NULL);
CREATE FUNCTION note_slot() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN INSERT INTO taken VALUES (NEW.taken_at); RETURN NULL; END$$;
CREATE TRIGGER note_slot AFTER INSERT OR UPDATE ON upstream_read_slots FOR EACH ROW EXECUTE FUNCTION note_slot();
"""


@pytest.fixture
async def rig(database_url: str) -> AsyncIterator[Rig]:
    async with tasks_on(database_url) as found:
        found.pixapi.react = running
        yield found


async def poll(process: Process, task: str, *, renew: bool = False) -> Reading:
    return await process.reader.read(TEAM, task, "req_1", renew=renew)


@pytest.mark.long
async def test_a_task_is_read_once_per_interval_by_all_processes(rig: Rig) -> None:
    task, _ = await rig.task(await rig.upstream_key(), due=False)
    processes = [await rig.process() for _ in range(3)]
    ends = time.monotonic() + 4.5
    while time.monotonic() < ends:
        answers = await asyncio.gather(*(poll(process, task) for process in processes for _ in range(5)))
        assert {answer.status for answer in answers} <= {"submitted", "processing"}
        await asyncio.sleep(0.05)
    at = rig.pixapi.at
    assert 2 <= len(at) <= 3
    assert all(later - earlier >= 1.95 for earlier, later in itertools.pairwise(at))


async def test_no_cache_does_not_pass_the_interval(rig: Rig) -> None:
    task, _ = await rig.task(await rig.upstream_key(), due=False)
    one, other = await rig.process(), await rig.process()
    for _ in range(5):
        for process in (one, other):
            await poll(process, task, renew=True)
    assert rig.pixapi.reads[task] == 1


@pytest.mark.long
async def test_a_key_keeps_to_its_reads_a_second_over_all_processes(rig: Rig) -> None:
    key = await rig.upstream_key()
    await rig.run(NOTE_SLOTS)
    tasks = [(await rig.task(key))[0] for _ in range(24)]
    processes = [await rig.process(reads_per_second=5) for _ in range(3)]
    async with rig.reconciling(*processes):
        ends = time.monotonic() + 2.5
        while time.monotonic() < ends:
            for number, task in enumerate(tasks):
                await poll(processes[number % 3], task)
    taken = [row.at for row in await rig.run("SELECT at FROM taken ORDER BY at")]
    assert len(taken) >= 8
    for start in taken:
        assert sum(start <= one < start + timedelta(seconds=1) for one in taken) <= 5
    assert len(rig.pixapi.at) <= len(taken)


async def test_a_slot_taken_by_another_a_moment_later_is_taken(rig: Rig) -> None:
    """Who looked at the clock first may reach the slots second."""
    key = await rig.upstream_key()
    one, other = (await rig.task(key))[0], (await rig.task(key))[0]
    process = await rig.process(reads_per_second=1)
    assert (await process.registry.begin_read(one, key)).verdict == "go"
    await rig.run("UPDATE upstream_read_slots SET taken_at = clock_timestamp() + interval '0.5 s'")
    assert (await process.registry.begin_read(other, key)).verdict == "full"


@pytest.mark.parametrize("told", [True, False], ids=["with events", "without"])
async def test_what_another_process_is_reading_is_waited_for(rig: Rig, told: bool) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(task: str) -> tuple[int, str]:
        asked.set()
        await answer.wait()
        return await running(task)

    rig.pixapi.react = slow
    task, _ = await rig.task(await rig.upstream_key(), due=False)
    one, other = await rig.process(), await rig.process()
    if not told:
        for events in rig.events:
            events.peers = []
    first = asyncio.create_task(poll(one, task))
    await asked.wait()
    others = [asyncio.create_task(poll(other, task)) for _ in range(10)]
    await asyncio.sleep(0.05)
    assert not any(waiting.done() for waiting in others)
    answer.set()
    assert (await first).cache == "miss"
    assert {(found.cache, found.status) for found in await asyncio.gather(*others)} == {
        ("coalesced", "processing")
    }
    assert rig.pixapi.reads[task] == 1


async def test_a_process_killed_while_it_reads_holds_nobody_up_for_long(rig: Rig) -> None:
    task, _ = await rig.task(key := await rig.upstream_key(), due=False)
    dead, alive = await rig.process(), await rig.process()
    assert (await dead.registry.begin_read(task, key)).verdict == "go"
    assert (await alive.registry.begin_read(task, key)).verdict == "busy"
    await rig.run("UPDATE tasks SET reading_until = now() + interval '0.3 s'")
    began = time.monotonic()
    found = await poll(alive, task)
    assert (found.status, rig.pixapi.reads[task]) == ("processing", 1)
    assert time.monotonic() - began < 6


async def test_the_first_of_many_may_leave(rig: Rig) -> None:
    answer = asyncio.Event()

    async def slow(task: str) -> tuple[int, str]:
        await answer.wait()
        return await running(task)

    rig.pixapi.react = slow
    task, _ = await rig.task(await rig.upstream_key(), due=False)
    process = await rig.process()
    first = asyncio.create_task(poll(process, task))
    while not rig.pixapi.reads[task]:
        await asyncio.sleep(0.01)
    others = [asyncio.create_task(poll(process, task)) for _ in range(499)]
    first.cancel()
    await asyncio.wait({first})
    answer.set()
    assert {found.status for found in await asyncio.gather(*others)} == {"processing"}
    assert rig.pixapi.reads[task] == 1


async def test_a_late_answer_never_covers_a_newer_one(rig: Rig) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    words = ['"status":"submitted"', '"status":"processing"']

    async def react(_: str) -> tuple[int, str]:
        number = len(rig.pixapi.at) - 1
        await gates[number].wait()
        return 200, words[number]

    rig.pixapi.react = react
    task, _ = await rig.task(await rig.upstream_key(), due=False)
    slow, quick = await rig.process(), await rig.process()
    first = asyncio.create_task(poll(slow, task))
    while not rig.pixapi.at:
        await asyncio.sleep(0.01)
    await rig.run("UPDATE tasks SET reading_until = now() - interval '1 s'")
    gates[1].set()
    assert (await poll(quick, task)).status == "processing"
    gates[0].set()
    assert (await first).status == "processing"
    assert (await rig.stored(task)).status == "processing"


async def test_an_ended_task_is_read_anew_at_most_once_per_interval(rig: Rig) -> None:
    async def done(_: str) -> tuple[int, str]:
        return 200, f'"status":"completed","credits_cost":1.5,"url":"{len(rig.pixapi.at)}"'

    rig.pixapi.react = done
    task, hold = await rig.task(await rig.upstream_key(), due=False)
    one, other = await rig.process(), await rig.process()
    await poll(one, task)
    before = await rig.state(hold)
    await rig.run("UPDATE tasks SET read_at = now() - interval '3 s'")
    assert b'"url":"2"' in (await poll(one, task, renew=True)).body
    await rig.run("UPDATE tasks SET read_at = now()")  # however long the read took
    assert b'"url":"2"' in (await poll(other, task, renew=True)).body
    assert rig.pixapi.reads[task] == 2
    assert await rig.state(hold) == before
    assert b'"url":"2"' in (await poll(other, task)).body


async def test_waiting_has_the_reconciler_read_and_is_told(rig: Rig) -> None:
    task, _ = await rig.task(await rig.upstream_key(), due=False)
    one, other = await rig.process(), await rig.process()
    seen = await poll(one, task)
    await rig.run("UPDATE tasks SET next_read_at = now() + interval '20 s', read_at = now() - interval '2 s'")

    async def done(_: str) -> tuple[int, str]:
        return 200, '"status":"completed","credits_cost":1.5'

    rig.pixapi.react = done
    waiting = [asyncio.create_task(one.watch.change(task, seen, 10)) for _ in range(20)]
    await asyncio.sleep(0)
    await one.watch.look()
    async with rig.reconciling(other):
        told = await asyncio.gather(*waiting)
    assert {reading.status for reading in told if reading is not None} == {"completed"}
    assert len([reading for reading in told if reading is not None]) == 20
    assert (rig.pixapi.reads[task], one.watch.waiting) == (2, 0)


async def test_without_events_a_look_at_postgres_tells(rig: Rig) -> None:
    task, _ = await rig.task(await rig.upstream_key(), due=False)
    one, other = await rig.process(), await rig.process()
    for events in rig.events:
        events.peers = []
    seen = await poll(one, task)
    waiting = asyncio.create_task(one.watch.change(task, seen, 10))
    await asyncio.sleep(0)

    async def done(_: str) -> tuple[int, str]:
        return 200, '"status":"completed","credits_cost":1.5'

    rig.pixapi.react = done
    await rig.run("UPDATE tasks SET read_at = now() - interval '2 s'")
    await poll(other, task)
    await one.watch.look()
    told = await waiting
    assert told is not None
    assert told.status == "completed"


async def test_waiting_ends_without_a_change_and_when_the_process_does(rig: Rig) -> None:
    task, _ = await rig.task(await rig.upstream_key(), due=False)
    process = await rig.process()
    seen = await poll(process, task)
    assert await process.watch.change(task, seen, 0.05) is None
    waiting = asyncio.create_task(process.watch.change(task, seen, 30))
    await asyncio.sleep(0)
    process.watch.close()
    assert await waiting is None
    assert await process.watch.change(task, seen, 30) is None
    assert rig.pixapi.reads[task] == 1


async def test_a_clock_that_steps_back_stops_no_read(rig: Rig) -> None:
    key = await rig.upstream_key()
    task, _ = await rig.task(key, due=False)
    process = await rig.process(reads_per_second=1)
    await poll(process, task)
    ahead = "now() + interval '1 hour'"
    await rig.run(f"UPDATE upstream_read_slots SET taken_at = {ahead}")
    moments = ("read_at", "reading_until", "next_read_at", "leased_until")
    await rig.run(f"UPDATE tasks SET {', '.join(f'{moment} = {ahead}' for moment in moments)}")
    assert [record.id for record in await process.due.claim({"acct": 1}, lease=20)] == [task]
    assert (await process.registry.begin_read(task, key)).verdict == "go"
    assert (await process.registry.begin_read(task, key)).verdict == "busy"


async def test_a_task_put_off_for_good_is_not_due_for_lying_ahead(rig: Rig) -> None:
    await rig.task(await rig.upstream_key(), due=False)
    await rig.run("UPDATE tasks SET next_read_at = now() + interval '1000 years'")
    assert await (await rig.process()).due.claim({"acct": 1}, lease=20) == []


async def test_a_process_that_ends_waits_for_nobody(rig: Rig) -> None:
    task, _ = await rig.task(key := await rig.upstream_key(), due=False)
    one, other = await rig.process(), await rig.process()
    await one.registry.begin_read(task, key)
    other.watch.close()
    began = time.monotonic()
    assert (await poll(other, task)).cache == "stale"
    assert time.monotonic() - began < 1
