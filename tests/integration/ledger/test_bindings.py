"""Tasks are bound in groups: each to one hold for good, whoever else names it, however often it is said."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from uuid import UUID

import pytest
from sqlalchemy import exc

from gateway.credits.ledger import Ledger
from gateway.credits.terms import NewTask, SentVia
from gateway.db.engine import StatementRefusedError
from gateway.ids import uuid7
from tests.integration.ledger.book import (
    RELEASED,
    UPSTREAM_KEY,
    Book,
    LosesAnswers,
    Team,
    new_task,
    place_all,
    settled,
)

VIA = SentVia(upstream_key_id=UPSTREAM_KEY, outcome="answered", status=200, milliseconds=12)
TAKEN = "task id already recorded"


async def bind(ledger: Ledger, team: Team, hold: UUID, bound: NewTask) -> None:
    await ledger.bind(hold, team.order(), bound, [VIA])


@pytest.fixture
def team(book: Book) -> Team:
    book.upstream_key()
    return book.team()


def owners(book: Book) -> dict[str, UUID]:
    """The hold of every task."""
    return {row["id"]: row["hold_id"] for row in book.rows("SELECT id, hold_id FROM tasks")}


async def test_tasks_that_come_at_once_are_written_together(book: Book, team: Team) -> None:
    holds = await place_all([book.ledger], [team.order() for _ in range(40)])
    await asyncio.gather(
        *(bind(book.ledger, team, one.id, new_task(f"t{number}")) for number, one in enumerate(holds))
    )
    assert owners(book) == {f"t{number}": one.id for number, one in enumerate(holds)}
    assert book.rows("SELECT count(DISTINCT xmin::text) AS n FROM tasks") == [{"n": 1}], "one commit"
    assert book.rows("SELECT DISTINCT status, body, credits_cost FROM tasks") == [
        {"status": "submitted", "body": b'{"id": "\xff"}', "credits_cost": None}
    ]
    for number, one in enumerate(holds):
        row = book.hold(one.id)
        assert (row["state"], row["task_id"], row["upstream_key_id"]) == ("held", f"t{number}", UPSTREAM_KEY)
    assert len(book.rows("SELECT FROM attempts")) == 40
    book.proven()


async def test_one_task_for_two_holds_of_one_batch_is_the_first_s(book: Book, team: Team) -> None:
    await book.quota(team.owner(), "month", 100)
    other = book.team()
    first, second, free = await place_all([book.ledger], [team.order(), other.order(), team.order()])
    await asyncio.gather(
        bind(book.ledger, team, first.id, new_task("same")),
        bind(book.ledger, other, second.id, new_task("same")),
        bind(book.ledger, team, free.id, new_task("own")),
    )
    assert owners(book) == {"same": first.id, "own": free.id}
    assert [book.hold(one.id)["state"] for one in (first, second, free)] == ["held", "unknown", "held"]
    assert (book.hold(second.id)["reason"], book.hold(second.id)["task_id"]) == (TAKEN, "same")
    assert book.usage(other)["failed"] == 1
    await bind(book.ledger, other, second.id, new_task("same"))
    assert book.usage(other)["failed"] == 1
    book.proven()


async def test_a_hold_that_has_ended_stays_ended_when_its_task_is_taken(book: Book, team: Team) -> None:
    holds = await place_all([book.ledger], [team.order() for _ in range(3)])
    await book.ledger.end(holds[1].id, RELEASED)
    await book.ledger.end(holds[2].id, settled(2))
    for one in holds:
        await bind(book.ledger, team, one.id, new_task("same"))
    assert [book.hold(one.id)["state"] for one in holds] == ["held", "released", "settled"]
    book.proven()


async def test_a_poisoned_task_fails_alone(book: Book, team: Team) -> None:
    holds = await place_all([book.ledger], [team.order() for _ in range(20)])
    tasks = [new_task(f"t{number}") for number in range(20)]
    tasks[3] = new_task("t3", upstream_key_id=uuid7())  # no such key
    tasks[7] = new_task("t\x00")  # not a text Postgres can store
    tasks[11] = new_task("\ud800")  # not even JSON
    found = await asyncio.gather(
        *(bind(book.ledger, team, one.id, bound) for one, bound in zip(holds, tasks, strict=True)),
        return_exceptions=True,
    )
    failed = {number: type(error) for number, error in enumerate(found) if error is not None}
    assert failed == {3: exc.IntegrityError, 7: StatementRefusedError, 11: UnicodeEncodeError}
    assert len(owners(book)) == 17
    assert len(book.rows("SELECT FROM holds WHERE task_id IS NOT NULL")) == 17
    assert book.hold(holds[3].id)["state"] == "held"
    book.proven()


@pytest.mark.parametrize("lost", [1, 3])
async def test_a_batch_whose_answer_is_lost_is_sent_again(book: Book, team: Team, lost: int) -> None:
    database = LosesAnswers(book.url)
    ledger = book.process(database)
    one, two = await place_all([ledger], [team.order() for _ in range(2)])
    await bind(ledger, team, one.id, new_task("taken"))
    again = (await place_all([ledger], [team.order()]))[0]
    database.lose = lost
    await asyncio.gather(
        ledger.bind_surely(two.id, team.order(), new_task("own"), [VIA]),
        ledger.bind_surely(again.id, team.order(), new_task("taken"), [VIA]),
    )
    assert database.lose == 0
    assert owners(book) == {"taken": one.id, "own": two.id}
    assert [book.hold(hold.id)["state"] for hold in (one, two, again)] == ["held", "held", "unknown"]
    assert len(book.rows("SELECT FROM attempts")) == 3
    book.proven()


async def test_the_same_statement_twice_changes_nothing(book: Book, team: Team) -> None:
    holds = await place_all([book.ledger], [team.order() for _ in range(3)])
    body = b64encode(b"{}").decode()
    items = [
        {"id": str(one.id), "team": str(team.id), "key": team.keys[0], "operation": "o", "model": "m",
         "task": name, "upstream_key": str(UPSTREAM_KEY), "status": "submitted", "body": body}
        for one, name in zip(holds, ("a", "b", "a"), strict=True)
    ]  # fmt: skip
    bound = "SELECT * FROM gateway_bind(%s)"
    answers = [[row["taken"] for row in book.rows(bound, json.dumps(items))] for _ in range(3)]
    assert answers == [[False, False, True]] * 3
    book.sql.execute("UPDATE tasks SET status = 'completed', body = 'x' WHERE id = 'b'")
    book.rows(bound, json.dumps(items))
    assert book.rows("SELECT status, body FROM tasks WHERE id = 'b'") == [
        {"status": "completed", "body": b"x"}
    ]
    assert owners(book) == {"a": holds[0].id, "b": holds[1].id}
    book.proven()


async def test_two_processes_that_name_the_same_tasks_agree_on_their_holds(book: Book, team: Team) -> None:
    await book.quota(team.owner(), "month", 10**6)
    ledgers = [book.process(), book.process()]
    for turn in range(4):
        names = [f"{turn}-{number}" for number in range(30)]
        holds = [await place_all([ledger], [team.order() for _ in names]) for ledger in ledgers]
        binds = [
            bind(ledger, team, one.id, new_task(name))
            for ledger, placed in zip(ledgers, holds, strict=True)
            for one, name in zip(placed, names, strict=True)
        ]
        ends = [ledgers[0].end(one.id, settled(1)) for placed in holds for one in placed[::3]]
        await asyncio.gather(*binds, *ends)
    owned = owners(book)
    assert len(owned) == 120
    open_now = {
        row["id"]: row["state"] for row in book.rows("SELECT id, state FROM holds WHERE settled IS NULL")
    }
    assert len(open_now) == 160
    assert {hold for hold, state in open_now.items() if state == "held"} == open_now.keys() & set(
        owned.values()
    )
    book.proven()


async def waiting(book: Book, sessions: int) -> None:
    """Until so many sessions wait for a lock."""
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 10
    while len(book.rows(query)) < sessions:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_tasks_are_recorded_in_one_order(book: Book, team: Team) -> None:
    """Whatever the order of a batch: two that meet from both sides would wait for each other for good."""
    ledgers = [book.process(lock_timeout=20, statement_timeout=20) for _ in range(2)]
    holds = [await place_all([ledger], [team.order() for _ in range(3)]) for ledger in ledgers]
    with book.sql.transaction():
        book.sql.execute(
            "INSERT INTO tasks (id, team_id, key_id, hold_id, upstream_key_id, model, operation, status, body)"
            " VALUES ('1', %s, %s, %s, %s, 'm', 'o', 's', '')",
            (team.id, team.keys[0], uuid7(), UPSTREAM_KEY),
        )
        found = []
        for ledger, placed, order in zip(ledgers, holds, ((0, 1, 2), (2, 1, 0)), strict=True):
            binds = [bind(ledger, team, placed[number].id, new_task(str(number))) for number in order]
            found.append(asyncio.gather(*binds))
            await waiting(book, len(found))
    await asyncio.wait_for(asyncio.gather(*found), 10)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert book.rows(deadlocks) == [{"deadlocks": 0}]
    assert [book.hold(one.id)["state"] for placed in holds for one in placed[::2]] == ["held"] * 2 + [
        "unknown"
    ] * 2
    book.proven()
