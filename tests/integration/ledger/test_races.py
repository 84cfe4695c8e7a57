"""Quotas, zones and holds that change at once, over several processes: nothing is lost, doubled or locked for good."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest

from gateway.access import teams
from gateway.credits import counters, standing
from gateway.credits.ledger import Ledger
from gateway.credits.terms import end_item, place_item
from gateway.errors import GatewayError
from gateway.ids import uuid7
from tests.integration.ledger.book import CREDIT, RELEASED, UNKNOWN, Book, Team, address, place_all, settled


async def change_zone(book: Book, team: Team, zone: str) -> None:
    """As the admin API does it."""
    async with book.database.transaction() as connection:
        await counters.lock(connection, team.id)
        await counters.close_dated(connection, team.id)
        await teams.update(connection, "admin", str(team.id), {"time_zone": zone})
        await counters.open_missing(connection, team.id)


class Traffic:
    """Callers that place and end holds until told to stop; whatever is not a refusal is kept as a failure."""

    def __init__(self, ledgers: list[Ledger], teams: list[Team], seed: int) -> None:
        self._ledgers = ledgers
        self._teams = teams
        self._seed = seed
        self._stopped = False
        self.outcomes: Counter[str] = Counter()

    async def run(self, callers: int, during: Callable[[], Awaitable[None]]) -> None:
        tasks = [asyncio.create_task(self._caller(random.Random(self._seed + n))) for n in range(callers)]
        try:
            await during()
        finally:
            self._stopped = True
            await asyncio.gather(*tasks)

    async def placed(self, more: int) -> None:
        """Waits until so many more calls have been placed and answered."""
        until = self.outcomes["placed"] + more
        async with asyncio.timeout(30):
            while self.outcomes["placed"] < until:
                await asyncio.sleep(0.005)

    async def _caller(self, dice: random.Random) -> None:
        words = [settled(0.3), settled(1), settled(2.5), RELEASED, UNKNOWN]
        while not self._stopped:
            team = dice.choice(self._teams)
            order = team.order(key=dice.randrange(len(team.keys)), model=dice.choice("ab"))
            try:
                placed = await dice.choice(self._ledgers).place(order)
                await asyncio.sleep(dice.random() / 100)
                for word in dice.sample(words, dice.randrange(3)):
                    await dice.choice(self._ledgers).end(placed.id, word)
                self.outcomes["placed"] += 1
            except GatewayError as error:
                cause = "" if error.status == 402 else f": {error.__cause__ or error.message}"
                self.outcomes[f"{error.reason}{cause}"] += 1


async def test_a_quota_made_in_mid_period_counts_what_was_spent_and_is_held(book: Book) -> None:
    team = book.team(keys=2)
    first = await book.ledger.place(team.order(5 * CREDIT))
    second = await book.ledger.place(team.order(3 * CREDIT, key=1))
    free = await book.ledger.place(team.order(0))
    await book.ledger.end(first.id, settled(4))
    await book.ledger.end(second.id, UNKNOWN)
    await book.quota(team.owner(), "month", 8)
    book.bare_quota(team.owner(0), "day", 5)
    assert book.counters(team.owner()) == {"month": (4 * CREDIT, 3 * CREDIT)}
    assert len(await place_all([book.ledger], [team.order() for _ in range(3)])) == 1
    assert book.counters(team.owner(0)) == {"day": (4 * CREDIT, CREDIT)}
    await book.ledger.end(second.id, settled(3))
    await book.ledger.end(free.id, settled(2))  # cost something after all: on the new counters too
    assert book.counters(team.owner()) == {"month": (9 * CREDIT, CREDIT)}
    book.proven()


@pytest.mark.parametrize("seed", range(2))
async def test_quotas_come_and_go_while_32_callers_place_and_settle(book: Book, seed: int) -> None:
    team = book.team(keys=2)
    traffic = Traffic([book.ledger, book.process(), book.process()], [team], seed)
    dice = random.Random(seed)

    async def admin() -> None:
        owners = [team.owner(), team.owner(0), team.owner(1)]
        for number in range(24):
            owner, period = dice.choice(owners), dice.choice(["day", "week", "month", "total"])
            exists = book.rows(
                "SELECT FROM quotas WHERE team_id = %s AND key_id IS NOT DISTINCT FROM %s AND period = %s",
                owner.team_id, owner.key_id, period,
            )  # fmt: skip
            if exists and number % 2:
                await book.remove(owner, period)  # type: ignore[arg-type]
            elif number % 5 == 4:
                await change_zone(book, team, dice.choice(["UTC", "Asia/Shanghai", "America/New_York"]))
            else:
                await book.quota(owner, period, dice.choice([5, 500, 5000]), enforce=number % 3 > 0)  # type: ignore[arg-type]
            await asyncio.sleep(0.02)

    await traffic.run(32, admin)
    assert set(traffic.outcomes) <= {"placed", "quota_exceeded"}
    assert traffic.outcomes["placed"] > 50
    book.proven()


async def test_keys_are_rotated_while_32_callers_place_with_all_of_them(book: Book) -> None:
    team = book.team(keys=2)
    for key in (0, 1):
        await book.quota(team.owner(key), "day", 60)
        await book.quota(team.owner(key), "total", 10**6)
    found = [team]
    traffic = Traffic([book.ledger, book.process(), book.process()], found, 11)

    async def admin() -> None:
        newest = list(team.keys)
        for number in range(12):
            newest[number % 2] = await book.rotate(newest[number % 2])
            found[0] = found[0].joined(newest[number % 2])
            if number % 4 == 3:
                await change_zone(book, team, ["Asia/Tokyo", "UTC"][number % 8 // 4])
            await asyncio.sleep(0.05)

    await traffic.run(32, admin)
    assert set(traffic.outcomes) == {"placed", "quota_exceeded"}
    for key in (0, 1):
        assert sum(book.counters(team.owner(key))["day"]) > 59 * CREDIT
    assert {row["key_id"] for row in book.rows("SELECT DISTINCT key_id FROM quotas")} == set(team.keys)
    assert len(book.rows("SELECT DISTINCT key_id FROM holds")) > 2
    book.proven()


async def test_bare_quotas_opened_by_the_calls_themselves_lose_nothing(book: Book) -> None:
    team = book.team(keys=2)
    traffic = Traffic([book.ledger, book.process()], [team], 7)

    async def admin() -> None:
        for owner in (team.owner(), team.owner(0), team.owner(1)):
            for period in ("day", "week", "month", "total"):
                # Not by the clock: calls that meet a new quota in each of their rounds are told to try again.
                await traffic.placed(64)
                book.bare_quota(owner, period, 1000, enforce=period == "month")

    await traffic.run(32, admin)
    assert set(traffic.outcomes) == {"placed"}
    await place_all([book.ledger], [team.order(key=key) for key in (0, 1)])
    assert len(book.counters(team.owner())) == len(book.counters(team.owner(1))) == 4
    book.proven()


async def test_a_zone_that_comes_back_has_counted_what_was_spent_meanwhile(book: Book) -> None:
    team = book.team("UTC")
    for period in ("day", "week", "month", "total"):
        await book.quota(team.owner(), period, 10)
    spent = await book.ledger.place(team.order())
    for zone in ("Asia/Shanghai", "Pacific/Apia", "UTC", "America/New_York", "UTC"):
        await change_zone(book, team, zone)
        placed = await book.ledger.place(team.order())
        await book.ledger.end(placed.id, settled(1))
        book.proven()
    await book.ledger.end(spent.id, settled(1))
    assert book.counters(team.owner())["total"] == (6 * CREDIT, 0)
    book.proven()


async def test_periods_count_what_was_placed_in_them_when_the_clock_steps_back(database_url: str) -> None:
    book = Book.open(database_url, movable_clock=True)
    team = book.team("Asia/Kathmandu")
    try:
        for days in (0, 2, -1, -2, 3, -40, 39):
            book.move_clock(timedelta(days=days))
            await book.ledger.end((await book.ledger.place(team.order())).id, settled(1))
            for period in ("day", "week", "month", "total"):
                await book.quota(team.owner(), period, 10)
            await book.ledger.place(team.order(CREDIT // 10))
            book.proven()
        assert book.counters(team.owner())["total"] == (7 * CREDIT, 7 * CREDIT // 10)
        book.sql.execute("DELETE FROM quota_periods")
        async with book.database.autocommit() as connection:
            shown = await standing.of_key(connection, team.id, team.keys[0])
        await book.ledger.place(team.order(0))
        assert {one.period: (one.settled, one.held) for one in shown} == book.counters(team.owner())
    finally:
        await book.close()


async def test_a_clock_that_steps_back_over_a_change_of_zone_finds_the_new_zone_s_periods(
    database_url: str,
) -> None:
    book = Book.open(database_url, movable_clock=True)
    team = book.team("UTC")
    await book.quota(team.owner(), "day", 10)
    try:
        for day, hour in ((15, 3), (16, 1)):
            book.set_clock(datetime(2026, 1, day, hour, tzinfo=UTC))
            await book.ledger.place(team.order())
        await change_zone(book, team, "Asia/Kathmandu")  # where the 16th begins at 18:15 on the 15th
        for hour, held in ((20, 2), (3, 2), (23, 3)):
            book.set_clock(datetime(2026, 1, 15, hour, tzinfo=UTC))
            await book.ledger.place(team.order())
            assert book.counters(team.owner()) == {"day": (0, held * CREDIT)}
            book.proven()
    finally:
        await book.close()


async def test_a_removed_quota_is_waited_for_by_whoever_opens_its_counter(book: Book) -> None:
    team = book.team()
    book.bare_quota(team.owner(), "month", 5)
    async with book.database.transaction() as connection:
        await counters.lock(connection, team.id)
        placing = asyncio.create_task(book.ledger.place(team.order()))
        await asyncio.sleep(0.1)
        await connection.exec_driver_sql("DELETE FROM quotas")
    assert (await placing).remaining is None
    book.proven()


async def test_a_call_placed_once_more_and_the_end_of_its_hold_never_wait_for_each_other(book: Book) -> None:
    """Its first answer was lost, and its caller has left, when the second is still on its way."""
    team, hold_id = book.team(), uuid7()
    await book.quota(team.owner(), "month", 10)
    place = partial(
        book.database.call, "gateway_place_calls", json.dumps([place_item(hold_id, team.order())]), "5s"
    )
    end = partial(book.database.call, "gateway_end", json.dumps([end_item(hold_id, RELEASED)]), "5s")
    await place()
    with psycopg.connect(address(book.url)) as other:
        other.execute("SELECT FROM quota_periods FOR NO KEY UPDATE")
        placing = asyncio.create_task(place())
        await waiting_for_locks(book, 1)
        ending = asyncio.create_task(end())
        await waiting_for_locks(book, 2)
        other.commit()
    assert (await placing)[0].outcome == "placed"
    assert (await ending)[0].changed
    book.proven()


async def waiting_for_locks(book: Book, count: int) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while book.rows(query)[0]["count"] < count:
            await asyncio.sleep(0.01)


async def test_32_callers_on_hot_counters_never_deadlock(book: Book) -> None:
    found = [book.team(keys=2) for _ in range(3)]
    for team in found:
        for owner in (team.owner(), team.owner(0), team.owner(1)):
            for period in ("day", "month", "total"):
                await book.quota(owner, period, 10**6)
    before = book.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    traffic = Traffic([book.ledger, book.process()], found, 3)
    began = time.monotonic()

    async def admin() -> None:
        number = 0
        while time.monotonic() - began < 8:
            number += 1
            await change_zone(book, found[number % 3], ["UTC", "Asia/Tokyo"][number % 2])
            await asyncio.sleep(0.4)

    await traffic.run(32, admin)
    assert set(traffic.outcomes) == {"placed"}
    assert book.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == before
    book.proven()
