"""What a hold and a task are stored with, and what has been sent is written down sooner or later.

Quotas, races and the bookkeeping: tests/integration/ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from gateway.credits import ledger as module
from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion, SentVia
from tests.fakes.flaky_database import FlakyDatabase
from tests.fakes.stored import Caller, attempt_rows, caller, hold_row, task_row

SETTLED = Conclusion(state="settled", settled=5)


@pytest.fixture
async def team(database: FlakyDatabase) -> Caller:
    return await caller(database)


@pytest.fixture
def ledger(database: FlakyDatabase) -> Ledger:
    return Ledger(database)


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)


async def test_a_hold_is_placed_as_ordered(database: FlakyDatabase, ledger: Ledger, team: Caller) -> None:
    before = datetime.now(UTC)
    hold = (await ledger.place(team.order(1_500_000))).id
    row = await hold_row(database, hold)
    assert (row.state, row.quote, row.settled, row.ended_at, row.flags) == ("held", 1_500_000, None, None, [])
    order = team.order()
    assert (row.team_id, row.key_id, row.request_id) == (order.team_id, order.key_id, order.request_id)
    assert (row.operation, row.model, row.task_id) == (order.operation, order.model, None)
    assert hold.version == 7
    assert abs((row.placed_at - before).total_seconds()) < 60


def sends(team: Caller) -> list[SentVia]:
    return [
        SentVia(upstream_key_id=UUID(int=1), outcome="key_refused", status=401, milliseconds=12),
        SentVia(upstream_key_id=team.upstream_key_id, outcome="answered", status=200, milliseconds=340),
    ]


async def test_a_task_is_bound_with_its_owner_and_its_attempts(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    hold, task = (await ledger.place(team.order())).id, team.task()
    for _ in range(2):  # a repeat of the verb changes nothing
        await ledger.bind(hold, team.order(), task, sends(team))
    row = await task_row(database, task.id)
    assert (row.team_id, row.key_id, row.hold_id) == (team.team_id, team.key_id, hold)
    assert (row.status, row.body, row.ended_at) == ("submitted", task.body, None)
    placed = await hold_row(database, hold)
    assert (placed.state, placed.task_id, placed.upstream_key_id) == ("held", task.id, team.upstream_key_id)
    found = await attempt_rows(database, hold)
    assert [(one.number, one.outcome, one.status) for one in found] == [
        (1, "key_refused", 401),
        (2, "answered", 200),
    ]


async def test_a_task_id_that_is_taken_stays_its_owner_s_and_the_other_hold_is_unknown(
    database: FlakyDatabase, ledger: Ledger, team: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    thief, task = await caller(database), team.task()
    own, other = (await ledger.place(team.order())).id, (await ledger.place(thief.order())).id
    await ledger.bind(own, team.order(), task, [])
    for _ in range(2):
        await ledger.bind(other, thief.order(), thief.task(task.id), sends(thief))
    found = await task_row(database, task.id)
    assert (found.team_id, found.hold_id) == (team.team_id, own)
    assert (await hold_row(database, own)).state == "held"
    row = await hold_row(database, other)
    assert (row.state, row.reason, row.task_id) == ("unknown", "task id already recorded", task.id)
    assert len(await attempt_rows(database, other)) == 2
    assert {vars(record)["hold"] for record in caplog.records} == {str(other)}


async def test_a_bind_that_can_never_be_written_is_given_up_and_logged(
    database: FlakyDatabase, ledger: Ledger, team: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    hold, task = (await ledger.place(team.order())).id, replace(team.task(), status="a\0b")
    await ledger.bind_surely(hold, team.order(), task, [])
    assert not ledger.is_unbound(team.team_id, task.id)
    said = {record.getMessage() for record in caplog.records if record.exc_info is not None}
    assert said == {"an item of the ledger cannot be written", "a verb of the ledger is given up"}
    assert {(record.name, record.levelname) for record in caplog.records} == {("gateway.ledger", "ERROR")}


# Postgres goes away ----------------------------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(module, "REPEAT_SECONDS", 0.02)


def test_the_caller_waits_five_seconds_at_most() -> None:
    assert module.WAIT_SECONDS == 5.0


@pytest.mark.usefixtures("hurried")
async def test_an_end_is_repeated_until_postgres_is_back(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    hold = (await ledger.place(team.order())).id
    database.down = True
    asked = database.asked
    started = time.monotonic()
    await ledger.end_surely(hold, SETTLED, sends(team))
    assert 0.1 <= time.monotonic() - started < 3
    assert database.asked > asked + 1
    database.down = False

    async def is_settled() -> bool:
        return bool((await hold_row(database, hold)).state == "settled")

    await eventually(is_settled)
    assert len(await attempt_rows(database, hold)) == 2
    await ledger.close()


@pytest.mark.usefixtures("hurried")
async def test_a_task_is_known_as_unbound_until_it_is_written(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    hold, task = (await ledger.place(team.order())).id, team.task()
    database.down = True
    await ledger.bind_surely(hold, team.order(), task, [])
    assert ledger.is_unbound(team.team_id, task.id)
    database.down = False

    async def is_bound() -> bool:
        return not ledger.is_unbound(team.team_id, task.id)

    await eventually(is_bound)
    assert (await task_row(database, task.id)).hold_id == hold


async def test_with_postgres_there_nothing_is_left_to_repeat(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    hold, task = (await ledger.place(team.order())).id, team.task()
    await ledger.bind_surely(hold, team.order(), task, [])
    assert not ledger.is_unbound(team.team_id, task.id)
    assert (await task_row(database, task.id)).hold_id == hold
    await ledger.end_surely(hold, SETTLED)
    assert (await hold_row(database, hold)).state == "settled"


@pytest.mark.usefixtures("hurried")
async def test_a_process_that_ends_gives_the_verbs_a_last_chance(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    written, lost = [(await ledger.place(team.order())).id for _ in range(2)]
    database.down = True
    await ledger.end_surely(written, SETTLED)
    closing = asyncio.create_task(ledger.close(10))
    await asyncio.sleep(0.05)
    database.down = False
    await closing
    assert (await hold_row(database, written)).state == "settled"
    database.down = True
    await ledger.end_surely(lost, SETTLED)
    await ledger.close(0.05)
    database.down = False
    await asyncio.sleep(0.1)
    assert (await hold_row(database, lost)).state == "held"  # the reconciler's, after a crash too
