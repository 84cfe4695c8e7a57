"""What is left when callers leave and the database goes: every hold is accounted for, every verb lands once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.credits.ledger import Ledger
from gateway.db.engine import Database
from gateway.errors import GatewayError
from tests.integration.ledger.book import CREDIT, UNKNOWN, Book, LosesAnswers, Team, place_all, settled

GONE = "postgresql+psycopg://nobody@127.0.0.1:1/none"


async def eventually(check: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.02)


def nothing_open(book: Book) -> Callable[[], bool]:
    return lambda: book.rows("SELECT FROM holds WHERE state IN ('held', 'unknown')") == []


async def test_callers_cancelled_in_the_batch_leave_no_hold(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 100)
    await book.ledger.place(team.order())  # stays
    tasks = [asyncio.create_task(book.ledger.place(team.order())) for _ in range(60)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, asyncio.CancelledError) for one in done) == 30
    await eventually(lambda: book.counters(team.owner()) == {"month": (0, 31 * CREDIT)})
    book.proven()


async def test_a_cancelled_hold_is_released_while_others_keep_coming(book: Book) -> None:
    team = book.team()
    stopped = False

    async def others() -> None:
        while not stopped:
            placed = await book.ledger.place(team.order(request_id="other"))
            await book.ledger.end(placed.id, settled(1))

    busy = [asyncio.create_task(others()) for _ in range(8)]
    await asyncio.sleep(0.1)
    left = asyncio.create_task(book.ledger.place(team.order(request_id="left")))
    await asyncio.sleep(0)
    left.cancel()
    try:
        released = "SELECT FROM holds WHERE request_id = 'left' AND state = 'released'"
        await eventually(lambda: book.rows(released), 5)
    finally:
        stopped = True
        await asyncio.gather(*busy)
    book.proven()


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.long
async def test_an_answer_that_is_lost_changes_nothing(book: Book, lost: int) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 3)
    database = LosesAnswers(book.url, statement_timeout=0.5)
    ledger = Ledger(database)
    database.lose = lost
    found = await asyncio.gather(*(ledger.place(team.order()) for _ in range(5)), return_exceptions=True)
    admitted = [one for one in found if not isinstance(one, BaseException)]
    await ledger.close()
    held = [row["id"] for row in book.rows("SELECT id FROM holds WHERE state = 'held'")]
    assert sorted(held) == sorted(one.id for one in admitted)
    reasons = {one.reason for one in found if isinstance(one, GatewayError)}
    assert reasons == (
        {"quota_exceeded"} if lost == 1 else {"quota_exceeded", "database_unavailable"} & reasons
    )
    database.lose = lost
    ended = [await ledger.end_surely(one.id, settled(1)) for one in admitted]
    assert len(ended) == len(admitted)
    assert all(book.hold(one.id)["state"] == "settled" for one in admitted)
    await database.close()
    book.proven()


async def test_backends_that_are_killed_under_load_leave_everything_accounted_for(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 10**6)
    ledger = book.process(statement_timeout=0.5)
    stopped = False
    standing: set[Any] = set()
    refused: set[int] = set()

    async def caller() -> None:
        while not stopped:
            try:
                placed = await ledger.place(team.order())
            except GatewayError as error:
                refused.add(error.status)
                continue
            standing.add(placed.id)
            await ledger.end_surely(placed.id, settled(1))

    callers = [asyncio.create_task(caller()) for _ in range(16)]
    others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    kill = f"SELECT pg_terminate_backend(pid) {others}"
    for _ in range(10):
        await asyncio.sleep(0.1)
        book.rows(kill)
    stopped = True
    await asyncio.gather(*callers)
    await eventually(nothing_open(book))
    done = {row["id"] for row in book.rows("SELECT id FROM holds WHERE state = 'settled'")}
    assert done == standing
    assert refused <= {503}
    book.proven()


async def test_database_gone_between_dispatch_and_end(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 100)
    ledger = book.process()
    holds = await place_all([ledger], [team.order() for _ in range(20)])
    database, gone = book.databases[-1], Database(GONE)
    real = database._engine, database._lending
    database._engine, database._lending = gone._engine, gone._lending
    began = time.monotonic()
    ends = [asyncio.create_task(ledger.end_surely(one.id, settled(0.5))) for one in holds]
    again = [asyncio.create_task(ledger.end_surely(one.id, UNKNOWN)) for one in holds[:5]]
    await asyncio.sleep(1)
    with pytest.raises(GatewayError) as refused:
        await ledger.place(team.order())
    assert refused.value.status == 503
    answers = await asyncio.gather(*ends, *again)
    assert answers == [None] * 25  # the clients go on
    assert 4 < time.monotonic() - began < 6.5
    database._engine, database._lending = real
    await eventually(lambda: book.counters(team.owner()) == {"month": (10 * CREDIT, 0)}, 5)
    assert {row["state"] for row in book.rows("SELECT state FROM holds")} == {"settled"}
    await gone.close()
    book.proven()


async def locked(book: Book, team: Team, ledger: Ledger, orders: int) -> Sequence[Any]:
    """Places while another session sits on the team's counter for a second and a half."""
    with book.sql.transaction():
        book.rows("SELECT FROM quota_periods FOR UPDATE")
        tasks = [asyncio.create_task(ledger.place(team.order())) for _ in range(orders)]
        await asyncio.sleep(1.5)
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_locked_counter_delays_or_refuses_and_never_leaves_a_hold(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 100)
    ledger = book.process(lock_timeout=0.4, statement_timeout=0.6)
    found = await locked(book, team, ledger, 10)
    refused = [one for one in found if isinstance(one, GatewayError)]
    assert refused
    assert {one.status for one in refused} == {503}
    await ledger.close()
    assert book.counters(team.owner()) == {"month": (0, (10 - len(refused)) * CREDIT)}
    book.proven()


@pytest.mark.long
async def test_a_locked_team_delays_no_other_for_long(book: Book) -> None:
    slow, other = book.team(), book.team()
    for team in (slow, other):
        await book.quota(team.owner(), "month", 1000)
    ledger = book.process(lock_timeout=0.4, statement_timeout=0.6)
    waited: list[float] = []

    async def timed(team: Team) -> None:
        began = time.monotonic()
        await ledger.place(team.order())
        waited.append(time.monotonic() - began)

    with book.sql.transaction():
        book.rows(
            "SELECT FROM quota_periods c JOIN quotas q ON q.id = c.quota_id WHERE q.team_id = %s FOR UPDATE OF c",
            slow.id,
        )
        stuck = [asyncio.create_task(ledger.place(slow.order())) for _ in range(5)]
        for _ in range(20):
            stuck.append(asyncio.create_task(ledger.place(slow.order())))
            await asyncio.gather(*(timed(other) for _ in range(3)))
            await asyncio.sleep(0.05)
        found = await asyncio.gather(*stuck, return_exceptions=True)
    assert all(isinstance(one, GatewayError) and one.status == 503 for one in found)
    assert len(waited) == 60
    assert max(waited) < 1
    assert sorted(waited)[50] < 0.2  # only those in one batch with it waited at all
    await ledger.close()
    assert await ledger.place(slow.order())
    book.proven()


@pytest.mark.long
async def test_whoever_waits_for_a_hold_hears_within_five_seconds(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 100)
    ledger = book.process(lock_timeout=20, statement_timeout=20)
    with book.sql.transaction():
        book.rows("SELECT FROM quota_periods FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(GatewayError) as refused:
            await ledger.place(team.order())
        assert time.monotonic() - began < 5
    assert refused.value.status == 503
    await eventually(lambda: book.rows("SELECT FROM holds WHERE state = 'released'"))
    book.proven()
