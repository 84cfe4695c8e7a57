"""Reading a task: once per two seconds however many ask, never a verdict from a failure, ended once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Literal
from uuid import UUID

import pytest

from gateway.credits.amount import MICRO
from gateway.errors import GatewayError
from gateway.pool.dispatch import Dispatcher
from gateway.pool.pool import Pool
from gateway.tasks.entries import TaskEntries
from gateway.tasks.reader import TaskReader
from gateway.tasks.reading import Reading
from gateway.tasks.registry import Begun, Seen, TaskRecord
from gateway.tasks.watch import Watch
from gateway.upstream.client import Call, NotSentError, SentUnknownError
from tests.fakes.cache import GoneCache
from tests.fakes.clock import FakeClock
from tests.fakes.events import LinkedEvents
from tests.fakes.key_table import KeyTable, pool_of
from tests.fakes.principals import TEAM_ID
from tests.fakes.registry import FakeDueTasks, FakeLedger, FakeRegistry
from tests.fakes.upstream import Answer, FakeUpstream, Reaction, is_closed

OTHER_TEAM = UUID(int=99)
FIRST = b'{"id":"t","status":"submitted","progress":0}'


def state(status: str, cost: str = "null", task: str = "t") -> Answer:
    return Answer(200, f'{{"id":"{task}","status":"{status}","credits_cost":{cost}}}'.encode())


RUNNING, DONE, FAILED = state("processing"), state("completed", "1.5"), state("failed")


class Rig:
    """A reader of one task `t` of the team; what Pixapi answers can be changed by the test."""

    def __init__(self, pool: Pool, clock: FakeClock, own_key: UUID) -> None:
        self.clock = clock
        self.answer: Reaction = RUNNING
        self.upstream = FakeUpstream(self._react)
        self.record = TaskRecord(
            id="t",
            team_id=TEAM_ID,
            hold_id=UUID(int=7),
            upstream_key_id=own_key,
            account="a",
            quote=8 * MICRO,
            status="submitted",
            body=FIRST,
            ended=False,
        )
        self.registry = FakeRegistry(self.record)
        self.ledger = FakeLedger()
        dispatcher = Dispatcher(pool, self.upstream, clock)
        self.entries = TaskEntries(GoneCache(), clock)
        self.events = LinkedEvents()
        self.watch = Watch(self.registry, FakeDueTasks(), self.entries, self.events, clock, room=lambda: 5)
        self.reader = TaskReader(
            self.registry, self.ledger, dispatcher, clock, entries=self.entries, watch=self.watch
        )

    def _react(self, call: Call) -> Reaction:
        return self.answer

    async def read(self, task: str = "t", team: UUID = TEAM_ID, *, renew: bool = False) -> Reading:
        return await self.reader.read(team, task, "req_1", renew=renew)

    async def failure(self, task: str = "t", team: UUID = TEAM_ID) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.read(task, team)
        return caught.value

    @property
    def reads(self) -> int:
        return len(self.upstream.calls)


@pytest.fixture
async def rig() -> Rig:
    table, clock = KeyTable(), FakeClock()
    table.add("sibling", account="a")
    own = table.add("own", account="a")
    return Rig(await pool_of(table, clock), clock, own)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_running_task_is_read_through_its_own_key_and_kept_two_seconds(rig: Rig) -> None:
    first = await rig.read()
    assert (first.body, first.ended, first.cache) == (RUNNING.body, False, "miss")
    (call,) = rig.upstream.calls
    assert (call.method, call.path, rig.upstream.secrets) == ("GET", "/v1/tasks/t", ["sk_own"])
    rig.clock.forward(1.9)
    rig.answer = DONE
    second = await rig.read()
    assert (second.body, second.cache, second.seen_at) == (RUNNING.body, "hit", first.seen_at)
    rig.clock.forward(0.1)
    assert (await rig.read()).body == DONE.body
    assert rig.reads == 2


async def test_an_ended_task_concludes_its_hold_and_is_never_read_again(rig: Rig) -> None:
    rig.answer = DONE
    assert (await rig.read()).ended
    rig.clock.forward(10)
    rig.answer = FAILED
    later = await rig.read()
    assert (later.body, later.ended, later.cache) == (DONE.body, True, "hit")
    assert rig.reads == 1
    (conclusion,) = rig.registry.conclusions
    assert (conclusion.state, conclusion.settled) == ("settled", 1_500_000)


async def test_the_state_another_process_stored_first_stays(rig: Rig) -> None:
    rig.upstream.gate.clear()
    reading = asyncio.create_task(rig.read())
    await turns()
    await rig.registry.store(rig.record, Seen(status="failed", body=FAILED.body, next_read=0))
    rig.registry.records["t"] = replace(rig.registry.records["t"], ended=True)
    rig.answer = DONE
    rig.upstream.gate.set()
    assert (await reading).body == FAILED.body
    assert rig.registry.conclusions == []


async def test_all_who_ask_at_once_share_one_read_and_may_leave(rig: Rig) -> None:
    rig.upstream.gate.clear()
    asking = [asyncio.create_task(rig.read()) for _ in range(20)]
    await turns()
    asking[0].cancel()
    await turns()
    rig.upstream.gate.set()
    found = await asyncio.gather(*asking[1:])
    assert {reading.cache for reading in found} == {"coalesced"}
    assert {reading.body for reading in found} == {RUNNING.body}
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    assert rig.reads == 1


async def test_who_comes_while_it_is_looked_up_asks_nobody(rig: Rig) -> None:
    rig.registry.gate.clear()
    asking = [asyncio.create_task(rig.read()) for _ in range(20)]
    await turns()
    rig.registry.gate.set()
    assert [found.cache for found in await asyncio.gather(*asking)] == ["miss", *["coalesced"] * 19]
    assert (rig.registry.finds, rig.reads) == (1, 1)


async def test_a_stranger_s_question_is_never_shared(rig: Rig) -> None:
    rig.upstream.gate.clear()
    owner = asyncio.create_task(rig.read())
    await turns()
    assert (await rig.failure(team=OTHER_TEAM)).reason == "task_not_found"
    rig.upstream.gate.set()
    assert (await owner).cache == "miss"


async def test_a_read_of_the_reconciler_under_way_serves_polls(rig: Rig) -> None:
    rig.upstream.gate.clear()
    due = asyncio.create_task(rig.reader.read_due(rig.record, "req_1"))
    await turns()
    poll = asyncio.create_task(rig.read())
    await turns()
    rig.upstream.gate.set()
    assert await due
    assert ((await poll).cache, rig.reads) == ("coalesced", 1)


@pytest.mark.parametrize(
    "failure",
    [
        Answer(404, b'{"error":{"code":404,"message":"no such task"}}'),
        Answer(500),
        Answer(503, b'{"error":{"code":"service_error","message":"m"}}'),
        Answer(429, b"", 1.0),
        Answer(401),
        Answer(302),
        Answer(204),
        Answer(200, b"<html>"),
        Answer(200, b'{"id":"other","status":"completed","credits_cost":1}'),
        Answer(200, b'{"id":"t"}'),
        NotSentError("no connection"),
        SentUnknownError("x", timed_out=True),
    ],
    ids=str,
)
async def test_a_failed_read_is_no_verdict(rig: Rig, failure: Reaction) -> None:
    rig.answer = failure
    found = await rig.read()
    assert (found.body, found.ended, found.cache) == (FIRST, False, "stale")
    assert rig.registry.conclusions == []
    assert all(is_closed(body) for body in rig.upstream.bodies)
    rig.clock.forward(1.9)
    assert (await rig.read()).cache == "stale"
    assert rig.reads == 1


async def test_after_a_failure_the_last_state_is_shown_and_the_next_read_may_work(rig: Rig) -> None:
    await rig.read()
    rig.clock.forward(2)
    rig.answer = Answer(500)
    stale = await rig.read()
    assert (stale.body, stale.cache) == (RUNNING.body, "stale")
    rig.clock.forward(2)
    rig.answer = DONE
    assert (await rig.read()).body == DONE.body


async def test_without_a_store_the_end_is_not_told_before_it_is_written(rig: Rig) -> None:
    rig.registry.full = True
    rig.answer = DONE
    found = await rig.read()
    assert (found.body, found.ended, found.cache) == (FIRST, False, "stale")
    rig.registry.full = False
    rig.clock.forward(2)
    assert (await rig.read()).ended


async def test_an_absurdly_large_task_is_a_failed_read(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.tasks.reader.LARGEST_BODY", 10)
    rig.answer = DONE
    assert (await rig.read()).cache == "stale"
    assert all(is_closed(body) for body in rig.upstream.bodies)


async def test_another_team_s_task_is_no_task_also_while_it_is_kept(rig: Rig) -> None:
    assert (await rig.failure(team=OTHER_TEAM)).reason == "task_not_found"
    await rig.read()
    assert (await rig.failure(team=OTHER_TEAM)).status == 404
    assert (await rig.failure("unheard-of")).reason == "task_not_found"
    assert rig.reads == 1


async def test_a_task_that_is_not_recorded_yet_is_503(rig: Rig) -> None:
    rig.ledger.unbound.add("new")
    error = await rig.failure("new")
    assert (error.status, error.type, error.retry) == (503, "dependency_unavailable", True)


async def test_without_postgres_a_kept_reading_serves_and_others_are_503(rig: Rig) -> None:
    await rig.read()
    rig.registry.down = True
    assert (await rig.read()).cache == "hit"
    rig.clock.forward(2)
    assert (await rig.failure()).status == 503


@pytest.mark.parametrize("verdict", ["recent", "ended"])
async def test_what_another_process_has_just_read_is_not_read_again(
    rig: Rig, verdict: Literal["recent", "ended"]
) -> None:
    await rig.registry.store(rig.record, Seen(status="processing", body=RUNNING.body, next_read=0, number=1))
    rig.registry.verdicts = [Begun(verdict)]
    assert ((await rig.read()).body, rig.reads) == (RUNNING.body, 0)


async def test_a_key_that_has_had_its_reads_is_not_used(rig: Rig) -> None:
    rig.registry.verdicts = [Begun("full")]
    found = await rig.read()
    assert (found.body, found.cache, found.asked, rig.reads) == (FIRST, "stale", False, 0)


async def test_what_another_process_reads_is_waited_for(rig: Rig) -> None:
    rig.registry.verdicts = [Begun("busy")]
    other = LinkedEvents(rig.events.peers)
    asking = asyncio.create_task(rig.read())
    await turns()
    assert not asking.done()
    await rig.registry.store(rig.record, Seen(status="processing", body=RUNNING.body, next_read=0, number=1))
    other.publish("task", f"{TEAM_ID.hex}:t:0:1")
    found = await asking
    assert (found.body, found.cache, rig.reads) == (RUNNING.body, "coalesced", 0)


async def test_who_waits_for_another_process_in_vain_reads_at_last(rig: Rig) -> None:
    rig.registry.verdicts = [Begun("busy")]
    asking = asyncio.create_task(rig.read())
    while not asking.done():
        rig.clock.forward(1)
        await asyncio.sleep(0.05)
    assert ((await asking).body, rig.reads) == (RUNNING.body, 1)


async def test_the_reconciler_waits_for_nobody(rig: Rig) -> None:
    rig.registry.verdicts = [Begun("busy")]
    assert not await rig.reader.read_due(rig.record, "req_1")
    assert rig.reads == 0


async def test_no_status_goes_backwards(rig: Rig) -> None:
    await rig.read()
    rig.clock.forward(2)
    rig.answer = state("submitted")
    assert (await rig.read()).body == RUNNING.body


async def test_an_ended_task_may_be_read_anew_and_costs_nothing_more(rig: Rig) -> None:
    rig.answer = DONE
    await rig.read()
    rig.answer = Answer(200, b'{"id":"t","status":"completed","credits_cost":99,"url":"new"}')
    anew = await rig.read(renew=True)
    assert (anew.body, anew.cache, anew.ended) == (rig.answer.body, "miss", True)
    assert (await rig.read()).body == rig.answer.body
    assert (rig.reads, len(rig.registry.conclusions)) == (2, 1)


@pytest.mark.parametrize("answer", [FAILED, RUNNING, Answer(500), Answer(404)], ids=str)
async def test_an_end_is_final_whatever_a_later_read_says(rig: Rig, answer: Answer) -> None:
    rig.answer = DONE
    await rig.read()
    rig.answer = answer
    anew = await rig.read(renew=True)
    assert (anew.body, anew.cache, anew.ended) == (DONE.body, "stale", True)
    assert (await rig.read()).cache == "hit"
    assert len(rig.registry.conclusions) == 1


async def test_the_age_is_that_of_pixapi_s_word(rig: Rig) -> None:
    seen_at = (await rig.read()).seen_at
    rig.clock.forward(2)
    rig.answer = Answer(500)
    rig.registry.records["t"] = replace(rig.registry.records["t"], seen_ago=2.0)
    assert (await rig.read()).seen_at == seen_at
