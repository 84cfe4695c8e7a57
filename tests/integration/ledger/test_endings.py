"""A hold ends once, at its cost, whoever says so and how often."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any
from uuid import UUID

import psycopg
import pytest

from gateway.credits.ledger import conclude, conclude_all
from gateway.credits.terms import Conclusion, NewTask, SentVia
from gateway.db.engine import StatementRefusedError
from gateway.ids import uuid7
from tests.integration.ledger.book import CREDIT, RELEASED, UNKNOWN, Book, settled

VIA = SentVia(upstream_key_id=UUID(int=7), outcome="completed", status=200, milliseconds=12)


async def test_fifty_ends_at_once_end_it_once(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 10)
    ledgers = [book.ledger, book.process()]
    words = [settled(1), RELEASED, UNKNOWN, settled(2)]
    for _ in range(5):
        placed = await book.ledger.place(team.order())
        ended = await asyncio.gather(
            *(ledgers[number % 2].end(placed.id, words[number % len(words)]) for number in range(50))
        )
        kinds = book.entries(placed.id)
        state = book.hold(placed.id)["state"]
        assert state in {"settled", "released"}  # unknown is not an end
        assert ("settle" in kinds, "release" in kinds) == (state == "settled", state == "released")
        assert sum(one.changed for one in ended) in {1, 2}  # an unknown before the end is a change too
    book.proven()


async def test_the_first_word_of_one_batch_counts_and_a_later_one_is_not_lost(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 10)
    await book.ledger.end(uuid7(), RELEASED)  # the connection is there
    one, two = [await book.ledger.place(team.order()) for _ in range(2)]
    await asyncio.sleep(0)
    found = await asyncio.gather(
        book.ledger.end(uuid7(), RELEASED),  # goes alone; the others wait, and would go together
        book.ledger.end(one.id, UNKNOWN),
        book.ledger.end(one.id, settled(0.5)),
        book.ledger.end(one.id, RELEASED),
        book.ledger.end(two.id, RELEASED),
        book.ledger.end(two.id, settled(1)),
    )
    assert [ended.changed for ended in found] == [False, True, True, False, True, False]
    assert (book.hold(one.id)["state"], book.hold(one.id)["settled"]) == ("settled", CREDIT // 2)
    assert book.hold(two.id)["state"] == "released"
    assert book.usage(team) | {} == {
        "requests": 2, "failed": 1, "shadow_refused": 0, "credits": CREDIT // 2, "estimated_credits": 0,
    }  # fmt: skip
    book.proven()


def raw(book: Book, verb: str, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One of the ledger's functions, as SQL."""
    return book.rows(f"SELECT * FROM {verb}(%s)", json.dumps(items))


async def test_missing_and_doubled_ids_in_one_statement(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 10)
    placed = await book.ledger.place(team.order())
    missing = str(uuid7())
    sent = [{"number": 1, "upstream_key": str(UUID(int=7)), "outcome": "x", "status": 1, "milliseconds": 1}]
    items: list[dict[str, Any]] = [
        {"id": missing, "state": "settled", "settled": 5, "sent": sent},
        {"id": str(placed.id), "state": "settled", "settled": 7},
        {"id": str(placed.id), "state": "released"},
        {"id": missing, "state": "unknown"},
    ]
    found = raw(book, "gateway_end", items)
    assert [(str(row["id"]), row["changed"]) for row in found] == [
        (missing, False),
        (str(placed.id), True),
        (str(placed.id), False),
        (missing, False),
    ]
    assert book.entries(placed.id) == {"place": (CREDIT, 0), "settle": (-CREDIT, 7)}
    assert book.rows("SELECT * FROM attempts") == []
    book.proven()


async def test_the_same_statement_twice_changes_nothing(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 10)
    places = [
        {"id": str(uuid7()), "team": str(team.id), "key": team.keys[0], "request": "r", "operation": "images",
         "model": "m", "quote": quote * CREDIT}
        for quote in (6, 6, 4)
    ]  # fmt: skip
    doubled = [*places, places[0]]
    outcomes = [[row["outcome"] for row in raw(book, "gateway_place", doubled)] for _ in range(3)]
    assert outcomes == [["placed", "refused", "placed", "placed"]] * 3
    assert raw(book, "gateway_place", doubled)[0]["remaining"] == 0
    assert book.counters(team.owner()) == {"month": (0, 10 * CREDIT)}
    ends = [{"id": one["id"], "state": "settled", "settled": CREDIT, "sent": []} for one in places]
    changed = [[row["changed"] for row in raw(book, "gateway_end", ends)] for _ in range(3)]
    assert changed == [[True, False, True], [False] * 3, [False] * 3]
    assert [row["outcome"] for row in raw(book, "gateway_place", places)] == ["placed"] * 3
    assert book.usage(team)["requests"] == 3  # the refused one fits now
    book.proven()


@pytest.mark.parametrize("last", [settled(2), RELEASED])
async def test_unknown_is_resolved_later(book: Book, last: Conclusion) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 10)
    placed = await book.ledger.place(team.order(3 * CREDIT))
    states = [UNKNOWN, UNKNOWN, last, UNKNOWN, RELEASED, settled(3)]
    changed = [(await book.ledger.end(placed.id, state)).changed for state in states]
    assert changed == [True, False, True, False, False, False]
    assert book.hold(placed.id)["state"] == last.state
    assert book.usage(team)["failed"] == (last.state == "released")
    assert book.usage(team)["credits"] == (last.settled or 0)
    book.proven()


async def test_usage_follows_a_hold_from_place_to_end(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 100)

    def seen() -> tuple[int, int, int, int]:
        use = book.usage(team)
        return use["requests"], use["failed"], use["credits"], use["estimated_credits"]

    one, two = [await book.ledger.place(team.order()) for _ in range(2)]
    assert seen() == (2, 0, 0, 0)
    await book.ledger.end(one.id, UNKNOWN)
    assert seen() == (2, 1, 0, 0)
    await book.ledger.end(one.id, settled(1, estimated=True))
    assert seen() == (2, 0, CREDIT, CREDIT)
    await book.ledger.end(two.id, UNKNOWN)
    await book.ledger.end(two.id, RELEASED)
    assert seen() == (2, 1, CREDIT, CREDIT)
    book.proven()


async def test_usage_is_dated_by_the_placing_in_the_teams_day(book: Book) -> None:
    teams = [book.team(zone) for zone in ("Asia/Kathmandu", "Pacific/Apia", "America/Los_Angeles")]
    for team in teams:
        placed = await book.ledger.place(team.order())
        book.rows("SELECT 1 AS one FROM pg_sleep(0.01)")
        await book.ledger.end(placed.id, settled(1))
    found = book.rows(
        """
        SELECT u.day = (h.placed_at AT TIME ZONE t.time_zone)::date AS own_day,
               h.placed_at >= u.starts_at AND h.placed_at < u.starts_at + interval '15 minutes' AS own_quarter
        FROM usage_buckets u JOIN teams t ON t.id = u.team_id JOIN holds h ON h.team_id = t.id
        """
    )
    assert found == [{"own_day": True, "own_quarter": True}] * 3


async def test_a_cost_above_the_hold_is_booked_in_full(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 10)
    placed = await book.ledger.place(team.order(2 * CREDIT))
    ended = await book.ledger.end(placed.id, settled(12.5))
    assert ended.remaining == int(-2.5 * CREDIT)
    assert book.entries(placed.id) == {
        "place": (2 * CREDIT, 0),
        "settle": (-2 * CREDIT, 2 * CREDIT),
        "overrun": (0, int(10.5 * CREDIT)),
    }
    assert book.hold(placed.id)["flags"] == ["overrun"]
    assert book.counters(team.owner()) == {"month": (int(12.5 * CREDIT), 0)}
    book.proven()


@pytest.mark.long
async def test_ten_thousand_tenths_are_a_thousand(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 1000)
    done = 0

    async def caller() -> None:
        nonlocal done
        while done < 10_000:
            done += 1
            placed = await book.ledger.place(team.order(CREDIT // 10))
            await book.ledger.end(placed.id, settled(0.1))

    await asyncio.gather(*(caller() for _ in range(128)))
    assert book.counters(team.owner()) == {"month": (1000 * CREDIT, 0)}
    total = book.rows("SELECT sum(settled) / 1000000.0 AS credits FROM ledger_entries")[0]["credits"]
    assert f"{total:.6f}" == "1000.000000"
    book.proven()


async def test_an_end_that_makes_no_sense_is_refused_alone(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 100)
    holds = [await book.ledger.place(team.order()) for _ in range(6)]
    words = [
        settled(1),
        Conclusion(state="settled"),
        Conclusion(state="settled", settled=-1),
        Conclusion(state="held"),
        Conclusion(state="settled", settled=10**30),
        RELEASED,
    ]
    found = await asyncio.gather(
        *(book.ledger.end(placed.id, word) for placed, word in zip(holds, words, strict=True)),
        return_exceptions=True,
    )
    refused = [isinstance(one, StatementRefusedError) for one in found]
    assert refused == [False, True, True, True, True, False]
    assert [book.hold(placed.id)["state"] for placed in holds[1:5]] == ["held"] * 4
    assert (
        await book.ledger.end_surely(holds[1].id, words[1]) is None
    )  # the client gets its answer all the same
    book.proven()


async def test_attempts_and_the_task_are_kept(book: Book) -> None:
    team = book.team()
    placed = await book.ledger.place(team.order())
    book.sql.execute(
        "INSERT INTO upstream_keys (id, label, account, secret, fingerprint, last4) VALUES (%s, 'u', 'a', '', '', '')",
        (VIA.upstream_key_id,),
    )
    task = NewTask(id="t1", upstream_key_id=VIA.upstream_key_id, status="submitted", body=b"{}")
    for _ in range(2):
        await book.ledger.bind(placed.id, team.order(), task, [VIA])
    for _ in range(2):
        await book.ledger.end(placed.id, settled(1), [VIA, VIA])
    hold = book.hold(placed.id)
    assert (hold["task_id"], hold["upstream_key_id"], hold["state"]) == ("t1", VIA.upstream_key_id, "settled")
    assert [row["number"] for row in book.rows("SELECT number FROM attempts ORDER BY 1")] == [1, 2]
    book.proven()


async def test_conclusions_in_the_callers_transaction_are_undone_with_it(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 10)
    holds = [await book.ledger.place(team.order()) for _ in range(3)]
    async with book.database.transaction() as connection:
        ended = await conclude(connection, holds[0].id, settled(1))
        assert ended.changed
        await connection.rollback()
    assert book.hold(holds[0].id)["state"] == "held"
    async with book.database.transaction() as connection:
        several = await conclude_all(
            connection,
            [(holds[number].id, word) for number, word in ((2, RELEASED), (0, settled(1)), (2, UNKNOWN))],
        )
    assert [one.changed for one in several] == [True, True, False]
    assert [book.hold(placed.id)["state"] for placed in holds] == ["settled", "held", "released"]
    book.proven()


@pytest.mark.parametrize(
    "statement",
    ["UPDATE ledger_entries SET settled = 0", "DELETE FROM ledger_entries", "TRUNCATE ledger_entries"],
)
async def test_entries_are_append_only(book: Book, statement: str) -> None:
    await book.ledger.place(book.team().order())
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        book.rows(statement)
    assert book.rows("SELECT count(*) AS n FROM ledger_entries") == [{"n": 1}]


async def test_holds_and_entries_lie_in_the_month_of_their_id(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 100)
    edge = book.rows("SELECT extract(epoch FROM date_trunc('month', now() AT TIME ZONE 'UTC')) * 1000 AS ms")[
        0
    ]["ms"]
    stamps = [int(edge) - 1, int(edge), int(edge) + 1, 0, 2**48 - 1]
    ids = [str(uuid7(stamp)) for stamp in stamps]
    items = [
        {"id": one, "team": str(team.id), "key": team.keys[0], "request": "r", "operation": "images", "model": "m",
         "quote": CREDIT}
        for one in ids
    ]  # fmt: skip
    assert [row["outcome"] for row in raw(book, "gateway_place", items)] == ["placed"] * 5
    ends = [{"id": one, "state": "settled", "settled": CREDIT, "sent": []} for one in ids]
    assert all(row["changed"] for row in raw(book, "gateway_end", ends))
    month = book.rows("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM') AS m")[0]["m"]
    for table, names in itertools.product(("holds", "ledger_entries"), [("id", "hold_id")]):
        name = names[table == "ledger_entries"]
        found = {
            str(row["id"]): row["part"]
            for row in book.rows(f"SELECT {name} AS id, tableoid::regclass::text AS part FROM {table}")
        }
        expected = ["default", month, month, "default", "default"]
        assert [found[one] for one in ids] == [f"{table}_{part}" for part in expected]
    book.proven()
