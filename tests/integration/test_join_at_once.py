"""Identical calls that may join each other and start at the same instant: one is placed, over all connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import text

from gateway.credits.ledger import Ledger, RepeatedError
from gateway.credits.terms import Conclusion, Order, Placed, Repeatable, place_item
from gateway.db import migrate
from gateway.db.engine import Database
from gateway.ids import uuid7
from gateway.repeats.records import Records
from tests.fakes.flaky_database import FlakyDatabase
from tests.fakes.stored import Caller, caller

_numbers = count(1)
RELEASED = Conclusion(state="released", reason="never sent")
UNKNOWN = Conclusion(state="unknown", reason="test")


@pytest.fixture
async def team(database: FlakyDatabase) -> Caller:
    return await caller(database)


@pytest.fixture
def ledger(database: FlakyDatabase) -> Ledger:
    return Ledger(database)


def fingerprint() -> bytes:
    return next(_numbers).to_bytes(32, "big")


def joining(
    team: Caller,
    body: bytes,
    joinable: float | None = 600.0,
    key: str | None = None,
    number: int | None = None,
) -> Order:
    repeatable = Repeatable(
        idempotency_key=key, fingerprint=body, lives=900, joinable=joinable, grace=10, number=number
    )
    return replace(team.order(), repeatable=repeatable)


async def placed_at_once(database: Database, orders: Sequence[tuple[UUID, Order]]) -> list[str]:
    """The outcomes of one batch, in the order of its items."""
    items = msgspec.json.encode([place_item(hold_id, order) for hold_id, order in orders]).decode()
    async with database.autocommit() as connection:
        rows = (
            await connection.execute(
                text("SELECT id, outcome FROM gateway_place_calls(CAST(:items AS jsonb))"), {"items": items}
            )
        ).all()
    found = {row.id: row.outcome for row in rows}
    assert len(found) == len(rows) == len(orders)
    return [found[hold_id] for hold_id, _ in orders]


async def tried(ledger: Ledger, order: Order) -> Placed | None:
    """The hold, or None when the call was one to join."""
    try:
        return await ledger.place(order)
    except RepeatedError:
        return None


async def is_joined(ledger: Ledger, order: Order) -> bool:
    return await tried(ledger, order) is None


async def rows(database: Database, query: str, **values: Any) -> list[Any]:
    async with database.autocommit() as connection:
        return list((await connection.execute(text(query), values)).all())


async def change(database: Database, hold_id: UUID, what: str) -> None:
    async with database.autocommit() as connection:
        await connection.execute(
            text(f"UPDATE idempotency_records SET {what} WHERE hold_id = :id"), {"id": hold_id}
        )


async def test_of_two_in_one_batch_the_first_is_placed(database: FlakyDatabase, team: Caller) -> None:
    body = fingerprint()
    orders = [(uuid7(), joining(team, one)) for one in (body, body, fingerprint(), body)]
    for _ in range(2):  # sent again as it is, for an answer that was lost
        assert await placed_at_once(database, orders) == ["placed", "repeated", "placed", "repeated"]
    found = await rows(database, "SELECT id FROM holds WHERE team_id = :team", team=team.team_id)
    assert {row.id for row in found} == {orders[0][0], orders[2][0]}
    records = await rows(
        database, "SELECT hold_id FROM idempotency_records WHERE team_id = :team", team=team.team_id
    )
    assert {row.hold_id for row in records} == {orders[0][0], orders[2][0]}


async def test_of_many_at_many_connections_one_is_placed(database: FlakyDatabase, team: Caller) -> None:
    body, other = fingerprint(), fingerprint()
    orders = [joining(team, (body, other)[n % 2]) for n in range(24)]
    found = await asyncio.gather(*(tried(Ledger(database), order) for order in orders))
    assert sum(one is not None for one in found) == 2
    assert len(await rows(database, "SELECT FROM holds WHERE team_id = :team", team=team.team_id)) == 2


async def test_who_comes_second_waits_until_the_first_is_written(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    order = joining(team, fingerprint())
    item = msgspec.json.encode([place_item(uuid7(), order)]).decode()
    async with database.transaction() as connection:
        await connection.execute(
            text("SELECT FROM gateway_place_calls(CAST(:items AS jsonb))"), {"items": item}
        )
        second = asyncio.create_task(is_joined(ledger, order))
        waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        async with asyncio.timeout(5):
            while not await rows(database, waits):
                await asyncio.sleep(0.01)
        assert not second.done()
    assert await second


async def test_batches_of_the_same_bodies_in_other_orders_wait_in_no_circle(
    database: FlakyDatabase, team: Caller
) -> None:
    bodies = [fingerprint() for _ in range(12)]

    async def batch(turn: int) -> list[str]:
        order = bodies[turn:] + bodies[:turn]
        return await placed_at_once(
            database, [(uuid7(), joining(team, body)) for body in (order if turn % 2 else order[::-1])]
        )

    async def take(body: bytes) -> None:
        await rows(
            database,
            "SELECT gateway_take_repeat(:key, :body, 1, true, interval '600 s', interval '10 s')",
            key=team.key_id,
            body=body,
        )

    found = await asyncio.gather(*(batch(turn) for turn in range(12)), *(take(body) for body in bodies))
    outcomes = Counter(word for answer in found if answer is not None for word in answer)
    assert outcomes == {"placed": 12, "repeated": 12 * 11}


async def test_keys_of_a_team_and_bodies_are_apart(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    body = fingerprint()
    other = await caller(database)
    assert not await is_joined(ledger, joining(team, body))
    assert not await is_joined(ledger, joining(other, body))
    assert not await is_joined(ledger, joining(team, fingerprint()))
    assert await is_joined(ledger, joining(team, body))


async def test_calls_that_do_not_say_so_are_placed_beside_each_other(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    body = fingerprint()
    silent = joining(team, body, joinable=None)
    assert "joinable" not in place_item(uuid7(), silent)
    for _ in range(2):
        assert not await is_joined(ledger, silent)
    assert not await is_joined(ledger, joining(team, fingerprint(), joinable=0))
    assert await is_joined(ledger, joining(team, body, joinable=0)), "a call that runs can always be joined"
    keyed = fingerprint()
    assert not await is_joined(ledger, joining(team, keyed, joinable=None, key=f"key {keyed.hex()}"))
    assert not await is_joined(ledger, joining(team, keyed)), "a call with a key is its key's"


async def test_a_retry_joins_the_call_before_it_in_the_batch(database: FlakyDatabase, team: Caller) -> None:
    first, retry = joining(team, body := fingerprint(), joinable=None), joining(team, body, number=1)
    orders = [(uuid7(), first), (uuid7(), retry)]
    assert await placed_at_once(database, orders) == ["placed", "repeated"]
    assert await placed_at_once(database, [(uuid7(), retry), (uuid7(), first)]) == ["repeated", "placed"]


async def test_a_retry_joins_what_no_retry_of_its_number_has_taken(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    first = await ledger.place(joining(team, body := fingerprint(), joinable=None))
    await change(database, first.id, "taken = 1")
    assert await is_joined(ledger, joining(team, body, number=1)), "a call that runs can always be joined"
    await change(database, first.id, "ended_at = now()")
    assert await is_joined(ledger, joining(team, body, number=2))
    assert not await is_joined(ledger, joining(team, body, number=1))


async def test_a_call_that_runs_is_taken_again_when_there_is_no_other(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    """The second retry may arrive before the first."""
    body = fingerprint()
    one, other = [(await ledger.place(joining(team, body, joinable=None))).id for _ in range(2)]
    records = Records(database)
    taken = []
    for number in (2, 1, 1, 1):
        found = await records.take(team.key_id, body, number, any_number=False, window=600, grace=10)
        assert found is not None
        taken.append(found.hold_id)
    assert taken[:2] == [one, other]
    await change(database, one, "ended_at = now()")
    await change(database, other, "ended_at = now()")
    assert await records.take(team.key_id, body, 1, any_number=False, window=600, grace=10) is None


@pytest.mark.parametrize(
    ("was", "joined"),
    [
        ("ended_at = now() - interval '599 s'", True),
        ("ended_at = now() - interval '601 s'", False),
        ("ended_at = now(), delivered_at = now() - interval '9 s'", True),
        ("ended_at = now(), delivered_at = now() - interval '11 s'", False),
        ("created_at = now() - interval '1 hour'", True),  # it still runs
    ],
)
async def test_window_and_grace(
    database: FlakyDatabase, ledger: Ledger, team: Caller, was: str, joined: bool
) -> None:
    order = joining(team, fingerprint())
    first = await ledger.place(order)
    await change(database, first.id, was)
    assert await is_joined(ledger, order) == joined


async def test_what_was_released_is_joined_no_more_and_what_is_unknown_is(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    order = joining(team, fingerprint())
    first = await ledger.place(order)
    await ledger.end(first.id, RELEASED)
    second = await tried(ledger, order)
    assert second is not None
    await ledger.end(second.id, UNKNOWN)
    assert await is_joined(ledger, order)


async def exhaust(database: Database, team: Caller, period: str = "total") -> None:
    """A quota too small for any call; its counter is not there yet."""
    await rows(
        database,
        "INSERT INTO quotas (id, team_id, period, limit_micro, enforce)"
        " VALUES (gen_random_uuid(), :team, :period, 1, true) RETURNING id",
        team=team.team_id,
        period=period,
    )


async def test_of_calls_that_are_refused_all_hear_so(database: FlakyDatabase, team: Caller) -> None:
    await exhaust(database, team)
    await rows(database, "SELECT gateway_open_counters(:team)", team=team.team_id)
    order, first_try = joining(team, body := fingerprint()), joining(team, body, joinable=None)
    for orders in ([order, order, order], [first_try, order], [order], [order, first_try]):
        found = await placed_at_once(database, [(uuid7(), one) for one in orders])
        assert found == ["refused"] * len(orders)
    for table in ("holds", "idempotency_records"):
        assert await rows(database, f"SELECT FROM {table} WHERE team_id = :team", team=team.team_id) == []


@pytest.mark.parametrize("period", ["total", "day"])
async def test_all_who_are_refused_hear_the_same_arithmetic(
    database: FlakyDatabase, ledger: Ledger, team: Caller, period: str
) -> None:
    await exhaust(database, team, period)
    order, other = joining(team, fingerprint()), joining(team, fingerprint())
    for _ in range(2):  # at first there is no counter of this period
        found = await asyncio.gather(
            *(ledger.place(one) for one in (order, other) * 5), return_exceptions=True
        )
        assert [getattr(error, "reason", None) for error in found] == ["quota_exceeded"] * 10
        assert len({str(error) for error in found}) == 1
        assert "limit 0.000001, used 0, held 0" in str(found[0])


async def test_who_may_join_another_call_does_not_hear_what_the_first_hears(
    database: FlakyDatabase, ledger: Ledger, team: Caller
) -> None:
    runs = await ledger.place(joining(team, body := fingerprint(), joinable=None))
    await change(database, runs.id, "taken = 1, ended_at = now()")
    await exhaust(database, team)
    await rows(database, "SELECT gateway_open_counters(:team)", team=team.team_id)
    orders = [(uuid7(), joining(team, body, number=number)) for number in (1, 2, 1)]
    assert await placed_at_once(database, orders) == ["refused", "repeated", "refused"]


async def test_the_migration_s_way_back_is_the_function_as_it_was(empty_database_url: str) -> None:
    url = empty_database_url
    migrate.upgrade(url, "0008")
    database = Database(url)
    texts: list[str] = []
    for turn in (lambda: None, lambda: migrate.upgrade(url, "0009"), lambda: migrate.downgrade(url, "0008")):
        await asyncio.to_thread(turn)
        query = "SELECT prosrc FROM pg_proc WHERE proname = 'gateway_place_calls'"
        texts += [row.prosrc for row in await rows(database, query)]
    await database.close()
    before, changed, after = texts
    assert before == after
    assert ("joinable" in before, "joinable" in changed) == (False, True)
