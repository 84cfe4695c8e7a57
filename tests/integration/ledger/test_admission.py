"""Who gets a hold: exact to the last credit, whoever asks at once, over every quota that applies."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from sqlalchemy import exc

from gateway.credits.amount import LARGEST
from gateway.credits.terms import place_item
from gateway.db.engine import StatementRefusedError
from gateway.errors import GatewayError
from gateway.ids import uuid7
from tests.integration.ledger.book import (
    CREDIT,
    RELEASED,
    UNKNOWN,
    Book,
    end_all,
    place_all,
    settled,
    try_place,
)


async def test_items_of_one_batch_compete_for_the_last_credit(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 10)
    first = await book.ledger.place(team.order(0))  # the connection is there: what follows goes together
    found = await asyncio.gather(
        *(try_place(book.ledger, team.order(quote * CREDIT)) for quote in (6, 6, 4)), return_exceptions=False
    )
    assert [placed is not None for placed in found] == [True, False, True]
    assert [placed.remaining for placed in found if placed] == [4 * CREDIT, 0]
    assert first.remaining == 10 * CREDIT
    assert book.counters(team.owner()) == {"month": (0, 10 * CREDIT)}
    book.proven()


async def test_one_batch_shares_the_last_credits_of_a_team_and_its_keys_in_its_order(book: Book) -> None:
    """The team has room for three and one key for two: of those that lack both the counter made first refuses."""
    team = book.team(keys=2)
    await book.quota(team.owner(), "month", 3)
    await book.quota(team.owner(0), "day", 2)
    orders = [team.order(key=key) for key in (0, 0, 0, 1, 1, 0)]
    items = [place_item(uuid7(), order) for order in orders]
    once = book.rows("SELECT * FROM gateway_place_calls(%s, NULL)", msgspec.json.encode(items).decode())
    again = book.rows("SELECT * FROM gateway_place_calls(%s, NULL)", msgspec.json.encode(items).decode())
    assert [str(row["id"]) for row in once] == [item["id"] for item in items]
    said = [(row["outcome"], row["on_key"], row["period"]) for row in once]
    placed = ("placed", False, None)
    full = ("refused", False, "month")
    assert said == [placed, placed, ("refused", True, "day"), placed, full, full]
    assert [row["remaining"] for row in once] == [CREDIT, 0, None, 0, None, None]
    assert [row["outcome"] for row in again] == [row["outcome"] for row in once]
    assert book.counters(team.owner()) == {"month": (0, 3 * CREDIT)}
    assert book.counters(team.owner(0)) == {"day": (0, 2 * CREDIT)}
    book.proven()


async def test_of_one_batch_one_call_gets_the_last_credit_of_each_team(book: Book) -> None:
    teams = [book.team() for _ in range(3)]
    for team in teams:
        await book.quota(team.owner(), "month", 1)
        await book.quota(team.owner(0), "month", 1)
    items = [place_item(uuid7(), team.order()) for _ in range(4) for team in teams]
    rows = book.rows("SELECT * FROM gateway_place_calls(%s, NULL)", msgspec.json.encode(items).decode())
    assert [row["outcome"] for row in rows] == ["placed"] * 3 + ["refused"] * 9
    for team in teams:
        assert book.counters(team.owner()) == book.counters(team.owner(0)) == {"month": (0, CREDIT)}
    book.proven()


async def test_a_refusal_names_the_quota_and_its_arithmetic(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "total", 10)
    await book.quota(team.owner(0), "day", 3)
    spent = await book.ledger.place(team.order(CREDIT))
    await book.ledger.end(spent.id, settled(0.5))
    await book.ledger.place(team.order(2 * CREDIT))
    with pytest.raises(GatewayError) as refused:
        await book.ledger.place(team.order(CREDIT))
    midnight = book.rows("SELECT date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day' AS at")[0][
        "at"
    ]
    assert refused.value.status == 402
    assert refused.value.reason == "quota_exceeded"
    assert "needs 1 credits, more than the key's daily quota has left" in refused.value.message
    assert f"limit 3, used 0.5, held 2, resets {midnight:%Y-%m-%dT%H:%M:%SZ}" in refused.value.message


@pytest.mark.parametrize(("team_limit", "key_limit"), [(10, 3), (3, 10), (5, 5)])
async def test_team_and_key_both_count_and_a_refusal_leaves_nothing(
    book: Book, team_limit: int, key_limit: int
) -> None:
    team = book.team(keys=2)
    await book.quota(team.owner(), "month", team_limit)
    await book.quota(team.owner(0), "day", key_limit)
    ledgers = [book.ledger, book.process()]
    admitted = await place_all(ledgers, [team.order() for _ in range(50)])
    least = min(team_limit, key_limit)
    assert len(admitted) == least
    assert book.counters(team.owner()) == {"month": (0, least * CREDIT)}
    assert book.counters(team.owner(0)) == {"day": (0, least * CREDIT)}
    others = await place_all(ledgers, [team.order(key=1) for _ in range(50)])
    assert len(others) == team_limit - least
    assert book.rows("SELECT count(*) AS n FROM holds")[0]["n"] == team_limit
    book.proven()


async def test_the_first_calls_of_a_new_quota_open_its_counter_once(book: Book) -> None:
    team = book.team()
    book.bare_quota(team.owner(), "month", 5)
    book.bare_quota(team.owner(0), "total", 7)
    ledgers = [book.process() for _ in range(4)]
    admitted = await place_all(ledgers, [team.order() for _ in range(32)])
    assert len(admitted) == 5
    assert book.rows("SELECT count(*) AS n FROM quota_periods")[0]["n"] == 2
    book.proven()


async def test_a_thousand_calls_over_two_processes_admit_exactly_the_limit(book: Book) -> None:
    team = book.team(keys=3)
    await book.quota(team.owner(), "month", 100)
    await book.quota(team.owner(0), "month", 20)
    ledgers = [book.process(), book.process()]
    admitted = await place_all(ledgers, [team.order(key=number % 3) for number in range(1000)])
    assert len(admitted) == 100
    assert book.counters(team.owner()) == {"month": (0, 100 * CREDIT)}
    assert book.counters(team.owner(0))["month"][1] <= 20 * CREDIT
    assert book.usage(team)["requests"] == 100
    book.proven()


async def test_what_is_released_can_be_held_again_and_what_is_unknown_cannot(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 4)
    admitted = await place_all([book.ledger], [team.order() for _ in range(9)])
    await book.ledger.end(admitted[0].id, RELEASED)
    await book.ledger.end(admitted[1].id, UNKNOWN)
    await book.ledger.end(admitted[2].id, settled(0.25))
    assert book.counters(team.owner()) == {"month": (CREDIT // 4, 2 * CREDIT)}
    again = await place_all([book.ledger], [team.order(CREDIT // 4) for _ in range(20)])
    assert len(again) == 7
    book.proven()


async def test_a_shadow_quota_counts_and_flags_and_never_refuses(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "day", 2, enforce=False)
    await book.quota(team.owner(), "month", 6)
    admitted = await place_all([book.ledger], [team.order() for _ in range(9)])
    assert [placed.shadow_refused for placed in admitted] == [False] * 2 + [True] * 4
    assert book.counters(team.owner()) == {"day": (0, 6 * CREDIT), "month": (0, 6 * CREDIT)}
    assert book.usage(team)["shadow_refused"] == 4
    assert book.hold(admitted[-1].id)["flags"] == ["shadow_refused"]
    assert admitted[-1].remaining == 0  # the shadow's own is no remaining credit
    await end_all(book.ledger, admitted, settled(1))
    book.proven()
    await book.quota(team.owner(), "day", 2)
    assert await try_place(book.ledger, team.order(0)) is None


async def test_a_quota_of_zero_admits_what_costs_nothing_only(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "total", 0)
    assert await try_place(book.ledger, team.order(1)) is None
    free = await book.ledger.place(team.order(0))
    assert free.remaining == 0
    await book.ledger.end(free.id, settled(0))
    assert book.entries(free.id) == {"place": (0, 0), "settle": (0, 0)}
    book.proven()


async def test_limits_change_in_flight(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 3)
    admitted = await place_all([book.ledger], [team.order() for _ in range(3)])
    await book.quota(team.owner(), "month", 1)  # below what is held
    assert await try_place(book.ledger, team.order(1)) is None
    ended = await end_all(book.ledger, admitted, settled(1))
    assert [one.changed for one in ended] == [True] * 3
    assert ended[-1].remaining == -2 * CREDIT
    await book.quota(team.owner(), "month", 4)
    assert len(await place_all([book.ledger], [team.order() for _ in range(3)])) == 1
    book.proven()


async def test_a_poisoned_item_fails_alone(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 100)
    await book.ledger.place(team.order())
    orders = [team.order() for _ in range(20)]
    orders[7] = team.order(-1)  # against a constraint
    orders[11] = team.order(request_id="\x00")  # not a text Postgres can store
    orders[13] = team.order(10**30)  # beyond BIGINT
    orders[17] = team.order(request_id="\ud800")  # not even JSON
    found = await asyncio.gather(*(book.ledger.place(order) for order in orders), return_exceptions=True)
    failed = {number: error for number, error in enumerate(found) if isinstance(error, BaseException)}
    assert sorted(failed) == [7, 11, 13, 17]
    assert isinstance(failed[7], exc.IntegrityError)
    assert isinstance(failed[11], StatementRefusedError)
    assert isinstance(failed[13], StatementRefusedError)
    assert book.counters(team.owner()) == {"month": (0, 17 * CREDIT)}
    await book.ledger.place(team.order())
    book.proven()


async def test_amounts_at_the_edge_of_bigint_change_nothing_when_they_do_not_fit(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "total", LARGEST // CREDIT, enforce=False)
    huge = [await book.ledger.place(team.order(LARGEST)) for _ in range(9)]
    with pytest.raises(StatementRefusedError):
        await book.ledger.place(team.order(LARGEST))  # the counter would pass 2^63
    assert book.counters(team.owner()) == {"total": (0, 9 * LARGEST)}
    ended = await end_all(book.ledger, huge, settled(LARGEST // CREDIT))
    assert all(one.changed for one in ended)
    assert book.counters(team.owner()) == {"total": (9 * LARGEST, 0)}
    book.proven()


async def test_a_counter_that_has_ended_hides_none_that_runs(book: Book) -> None:
    team = book.team()
    quota = await book.quota(team.owner(), "month", 10)
    book.sql.execute(
        "INSERT INTO quota_periods (quota_id, starts_at, ends_at)"
        " SELECT %s, now() - interval '1 second', now()",
        (quota.id,),
    )
    placed = await book.ledger.place(team.order())
    assert placed.remaining == 9 * CREDIT
