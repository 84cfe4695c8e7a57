"""Tasks on a real Postgres: only the owner's, and ended once whoever reads the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion
from gateway.pool import upstream_keys
from gateway.tasks.registry import Registry, Seen, Stored, TaskRecord
from tests.fakes.flaky_database import FlakyDatabase
from tests.fakes.stored import ACTOR, Caller, caller, hold_row, task_row

RUNNING = Seen(status="processing", body=b"running", next_read=30)


def ended(cost: int = 1_500_000, body: bytes = b"done") -> Seen:
    """A completed task that cost so much."""
    settled = Conclusion(state="settled", settled=cost)
    return Seen(status="completed", body=body, next_read=0, cost=cost, conclusion=settled)


@pytest.fixture
def registry(database: FlakyDatabase) -> Registry:
    return Registry(database)


@pytest.fixture
async def team(database: FlakyDatabase) -> Caller:
    return await caller(database)


async def accepted(database: FlakyDatabase, team: Caller) -> TaskRecord:
    """A task of the team, as the registry finds it."""
    ledger, task = Ledger(database), team.task()
    await ledger.bind((await ledger.place(team.order())).id, team.order(), task, [])
    record = await Registry(database).find(team.team_id, task.id)
    assert record is not None
    return record


async def test_a_task_is_found_with_what_reading_it_takes(database: FlakyDatabase, team: Caller) -> None:
    record = await accepted(database, team)
    assert (record.team_id, record.upstream_key_id, record.account) == (
        team.team_id,
        team.upstream_key_id,
        team.account,
    )
    assert (record.quote, record.status, record.ended) == (8_000_000, "submitted", False)
    assert record.body.startswith(b'{"id":"task_')


async def test_another_team_s_task_is_not_found(
    database: FlakyDatabase, registry: Registry, team: Caller
) -> None:
    record, stranger = await accepted(database, team), await caller(database)
    assert await registry.find(stranger.team_id, record.id) is None
    assert await registry.find(team.team_id, "unheard-of") is None


async def test_a_removed_upstream_key_hides_no_task(
    database: FlakyDatabase, registry: Registry, team: Caller
) -> None:
    record = await accepted(database, team)
    async with database.transaction() as connection:
        await upstream_keys.remove(connection, ACTOR, str(team.upstream_key_id), force=True)
    found = await registry.find(team.team_id, record.id)
    assert found is not None
    assert replace(found, age=record.age, seen_ago=record.seen_ago) == record


async def test_a_running_state_is_kept_and_changes_no_credit(
    database: FlakyDatabase, registry: Registry, team: Caller
) -> None:
    record = await accepted(database, team)
    assert await registry.store(record, RUNNING) == Stored("processing", b"running", False, True)
    row = await task_row(database, record.id)
    assert (row.status, row.body, row.ended_at) == ("processing", b"running", None)
    assert row.read_at is not None
    assert (await hold_row(database, record.hold_id)).state == "held"


async def test_the_end_of_a_task_ends_its_hold(
    database: FlakyDatabase, registry: Registry, team: Caller
) -> None:
    record = await accepted(database, team)
    assert await registry.store(record, ended()) == Stored("completed", b"done", True, True, True)
    row, hold = await task_row(database, record.id), await hold_row(database, record.hold_id)
    assert (row.status, row.credits_cost, row.ended_at is None) == ("completed", 1_500_000, False)
    assert (hold.state, hold.settled) == ("settled", 1_500_000)
    found = await registry.find(team.team_id, record.id)
    assert found is not None
    assert (found.ended, found.body) == (True, b"done")


async def test_an_ended_task_never_changes_again(
    database: FlakyDatabase, registry: Registry, team: Caller
) -> None:
    record = await accepted(database, team)
    await registry.store(record, ended())
    before = await task_row(database, record.id), await hold_row(database, record.hold_id)
    failed = Seen(status="failed", body=b"failed", next_read=0, conclusion=Conclusion(state="released"))
    for seen in (failed, RUNNING):
        assert await registry.store(record, seen) == Stored("completed", b"done", True, False)
    await registry.note_failure(record, 5)
    assert (await task_row(database, record.id), await hold_row(database, record.hold_id)) == before


async def test_of_many_who_read_the_end_one_concludes(
    database: FlakyDatabase, registry: Registry, team: Caller
) -> None:
    record = await accepted(database, team)
    stored = await asyncio.gather(
        *(registry.store(record, ended(number, str(number).encode())) for number in range(20))
    )
    (body,) = {one.body for one in stored}
    assert sum(one.changed for one in stored) == 1
    row, hold = await task_row(database, record.id), await hold_row(database, record.hold_id)
    assert row.body == body
    assert row.credits_cost == hold.settled == int(body)


async def test_a_hold_an_admin_has_resolved_stays_resolved(
    database: FlakyDatabase, registry: Registry, team: Caller
) -> None:
    record = await accepted(database, team)
    await Ledger(database).end(record.hold_id, Conclusion(state="released", reason="by an admin"))
    assert await registry.store(record, ended()) == Stored("completed", b"done", True, True)
    assert (await task_row(database, record.id)).status == "completed"
    assert (await hold_row(database, record.hold_id)).state == "released"
