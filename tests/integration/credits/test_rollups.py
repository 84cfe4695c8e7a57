"""Days that are summed say what their rows say, whatever is written meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from gateway.credits import rollups, usage
from gateway.credits.daily import daily
from gateway.credits.ledger import conclude
from gateway.credits.rollups import Rollups, Through, upstream_credits
from gateway.credits.terms import Conclusion
from gateway.credits.usage import Dimension, Range
from gateway.credits.verify import repair, repairable
from gateway.db import migrate
from gateway.db.engine import Database
from gateway.ids import uuid7
from tests.integration.credits.conftest import Books

FIRST = datetime(2026, 3, 6, tzinfo=UTC)  # the clocks of New York change on the 8th
DAYS = 6
ZONES = ("UTC", "Asia/Kathmandu", "America/New_York", "Pacific/Kiritimati")
PLACES = ("team", "model", "operation", "day")
RANGES = 12
NAMES = ("requests", "failed", "credits", "estimated_credits", "shadow_refused")
QUARTER = timedelta(minutes=15)


async def _closed(books: Books, roller: Rollups, wanted: int) -> None:
    """Passes until so many days are closed; transactions of other databases of this server may delay them."""
    deadline = time.monotonic() + 30
    while True:
        await roller.once()
        [row] = await books.execute("SELECT count(*) AS days FROM usage_days_closed")
        if row.days >= wanted:
            assert row.days == wanted
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def _marks(books: Books) -> Counter[date]:
    return Counter(row.utc_day for row in await books.execute("SELECT utc_day FROM usage_days_late"))


async def _write(books: Books, drawn: random.Random, owners: dict[UUID, str]) -> None:
    """A quarter of an hour in which something changes: made, added to, taken back or removed."""
    team = drawn.choice(list(owners))
    at = FIRST + drawn.randrange(DAYS * 96) * QUARTER
    if drawn.random() < 0.1:
        await books.execute(
            "DELETE FROM usage_buckets WHERE starts_at = :at AND team_id = :team", at=at, team=team
        )
        return
    await books.execute(
        "INSERT INTO usage_buckets AS u (starts_at, team_id, key_id, model, operation, day, requests, failed,"
        " shadow_refused, credits, estimated_credits) VALUES (:at, :team, :key, :model, :operation,"
        " (CAST(:at AS timestamptz) AT TIME ZONE :zone)::date, :n, 1, 2, :credits, 5)"
        " ON CONFLICT (starts_at, team_id, key_id, model, operation) DO UPDATE"
        " SET failed = u.failed + 1, credits = u.credits + excluded.credits",
        at=at, team=team, key=drawn.choice("kl"), model=drawn.choice("mn"), operation=drawn.choice("op"),
        zone=owners[team], n=drawn.randrange(4), credits=drawn.randrange(10**9),
    )  # fmt: skip


def _bound(drawn: random.Random) -> date | datetime:
    at = FIRST + drawn.randrange(-96, (DAYS + 1) * 96) * QUARTER
    kind = drawn.randrange(3)
    return at if kind == 0 else at.date() if kind == 1 else at.replace(hour=0, minute=0)


def _range(drawn: random.Random) -> Range:
    while True:
        start, end = _bound(drawn), _bound(drawn)
        if str(start) < str(end):
            return Range(start=start, end=end)


async def _plainly(
    books: Books, which: Range, by: tuple[Dimension, ...], team: UUID | None
) -> dict[Any, Any]:
    """The sums by what is asked for, from every row there is, without the help of the database."""
    found: dict[Any, list[int]] = {}
    for row in await books.execute("SELECT * FROM usage_buckets"):
        after = (row.starts_at if isinstance(which.start, datetime) else row.day) >= which.start
        before = (row.starts_at if isinstance(which.end, datetime) else row.day) < which.end
        if not after or not before or team not in (None, row.team_id):
            continue
        named = tuple({"team": row.team_id, "key": row.key_id}.get(name) or getattr(row, name) for name in by)
        sums = found.setdefault(named, [0] * len(NAMES))
        found[named] = [value + getattr(row, name) for value, name in zip(sums, NAMES, strict=True)]
    return {named: tuple(sums) for named, sums in found.items()}


async def _as_read(
    books: Books, which: Range, by: tuple[Dimension, ...], team: UUID | None
) -> dict[Any, Any]:
    async with books.database.autocommit() as connection:
        found = await usage.statement(connection, which, by, team)
    assert [sum(getattr(row.sums, name) for row in found.rows) for name in NAMES] == [
        getattr(found.totals, name) for name in NAMES
    ]
    return {
        tuple(row.names["team_id" if name == "team" else name] for name in by): tuple(
            getattr(row.sums, name) for name in NAMES
        )
        for row in found.rows
    }


@pytest.mark.parametrize("by", ["team", "model", "key"])
@pytest.mark.parametrize("one_team", [False, True])
async def test_a_chart_is_the_sum_of_its_rows(books: Books, by: Any, one_team: bool) -> None:
    """The largest are those of the ranked days; their days and everybody's are of the whole range."""
    drawn = random.Random(7)
    owners = {await books.team(f"In {zone}", time_zone=zone): zone for zone in ZONES}
    for _ in range(80):
        await _write(books, drawn, owners)
    [days] = await books.execute(
        "SELECT count(DISTINCT (starts_at AT TIME ZONE 'UTC')::date) AS n FROM usage_buckets"
    )
    await _closed(books, Rollups(books.database), days.n)
    for _ in range(10):  # some of them late
        await _write(books, drawn, owners)
    first = FIRST.date()
    which = Range(start=first, end=first + timedelta(days=DAYS))
    ranked = Range(start=first + timedelta(days=1), end=first + timedelta(days=4))
    team = next(iter(owners)) if one_team else None
    async with books.database.autocommit() as connection:
        found = await daily(connection, which, by, 2, ranked=ranked, team_id=team)

    def spent(sums: dict[Any, Any]) -> dict[Any, int]:
        return {named: values[NAMES.index("credits")] for named, values in sums.items()}

    together = await _plainly(books, which, ("day",), team)
    assert {(day,): (sums.requests, sums.failed, sums.credits) for day, sums in found.days.items()} == {
        named: values[:3] for named, values in together.items()
    }
    places = spent(await _plainly(books, ranked, (by,), team))
    best = sorted(
        (named for named in places if places[named]), key=lambda named: (-places[named], str(named))
    )
    slugs = {row.id: row.slug for row in await books.execute("SELECT id, slug FROM teams")}
    assert [one.name for one in found.largest] == [slugs.get(named, named) for (named,) in best[:2]]
    each = spent(await _plainly(books, which, (by, "day"), team))
    for one, (ident,) in zip(found.largest, best, strict=False):
        assert one.credits == {day: amount for (named, day), amount in each.items() if named == ident}


@pytest.mark.parametrize("seed", range(3))
async def test_a_report_is_the_sum_of_its_rows(books: Books, seed: int) -> None:
    drawn = random.Random(seed)
    owners = {await books.team(f"In {zone}", time_zone=zone): zone for zone in ZONES}
    roller, read = Rollups(books.database), 0
    for turn in range(5):
        for _ in range(60 if turn == 0 else 8):
            await _write(books, drawn, owners)
        if turn == 1:
            [days] = await books.execute(
                "SELECT count(DISTINCT (starts_at AT TIME ZONE 'UTC')::date) AS n FROM usage_buckets"
            )
            await _closed(books, roller, days.n)
        elif turn == 3:
            await roller.once()
            assert not await _marks(books)
        for _ in range(RANGES):
            which = _range(drawn)
            by: Any = tuple(
                drawn.sample((*PLACES, "key") if drawn.random() < 0.2 else PLACES, drawn.randint(1, 3))
            )
            team = drawn.choice([None, None, *owners])
            expected = await _plainly(books, which, by, team)
            assert await _as_read(books, which, by, team) == expected, (which, by, team)
            read += len(expected)
    assert read > 100


async def _used(books: Books, team: UUID, at: datetime, credits_: int = 7, model: str = "m") -> None:
    await books.execute(
        "INSERT INTO usage_buckets (starts_at, team_id, key_id, model, operation, day, requests, credits)"
        " VALUES (:at, :team, 'k', :model, 'o', (CAST(:at AS timestamptz) AT TIME ZONE 'UTC')::date, 1, :credits)",
        at=at, team=team, credits=credits_, model=model,
    )  # fmt: skip


async def _total(books: Books) -> int:
    which = Range(start=datetime(2020, 1, 1, tzinfo=UTC), end=datetime(2100, 1, 1, tzinfo=UTC))
    async with books.database.autocommit() as connection:
        return (await usage.statement(connection, which, ("model",))).totals.credits


async def _held(books: Books, team: UUID, key: str, at: datetime, upstream: UUID, quote: int = 8) -> UUID:
    """A hold that was placed then and went through this upstream key, with its usage."""
    hold = uuid7(round(at.timestamp() * 1000))
    await books.execute(
        "INSERT INTO holds (id, team_id, key_id, request_id, operation, model, quote, placed_at, upstream_key_id)"
        " VALUES (:id, :team, :key, 'r', 'o', 'm', :quote, :at, :upstream)",
        id=hold, team=team, key=key, quote=quote, at=at, upstream=upstream,
    )  # fmt: skip
    await books.execute(
        "INSERT INTO usage_buckets AS u (starts_at, team_id, key_id, model, operation, day, requests) VALUES"
        " (date_bin('15 minutes', :at, '2000-01-01T00:00:00Z'), :team, :key, 'm', 'o',"
        " (CAST(:at AS timestamptz) AT TIME ZONE 'UTC')::date, 1)"
        " ON CONFLICT (starts_at, team_id, key_id, model, operation) DO UPDATE SET requests = u.requests + 1",
        at=at, team=team, key=key,
    )  # fmt: skip
    return hold


async def test_a_settlement_beside_the_sums_is_in_the_report_when_it_is_committed(books: Books) -> None:
    team = await books.team()
    key, upstream = await books.key(team), uuid4()
    at = datetime.now(UTC).replace(hour=12) - timedelta(days=3)
    first = await _held(books, team, key, at, upstream)
    second = await _held(books, team, key, at + timedelta(hours=1), upstream)
    roller = Rollups(books.database)
    await _closed(books, roller, 1)
    async with books.database.transaction() as connection:
        await conclude(connection, first, Conclusion(state="settled", settled=5))
        await books.end(second, Conclusion(state="settled", settled=8))
        assert await _total(books) == 8
        await roller.once()
        assert not await _marks(books)
        assert await _total(books) == 8
        assert await _through(books, at) == {upstream: (Through(), *[Through(requests=1, credits=8)] * 2)}
    assert await _marks(books) == {at.date(): 1}
    assert await _total(books) == 13
    await roller.once()
    assert not await _marks(books)
    assert await _total(books) == 13
    assert await _through(books, at) == {upstream: (Through(), *[Through(requests=2, credits=13)] * 2)}
    [row] = await books.execute("SELECT sum(credits) AS credits FROM usage_days")
    assert row.credits == 13


async def _through(books: Books, at: datetime) -> dict[UUID, tuple[Through, ...]]:
    """What upstream keys have served three days later."""
    async with books.database.autocommit() as connection:
        return await upstream_credits(connection, (at + timedelta(days=3)).date())


async def test_a_day_is_not_closed_before_those_who_wrote_in_it_have_ended(books: Books) -> None:
    """As when a process stops at midnight with a transaction open: nothing marks what it wrote before."""
    team, roller = await books.team(), Rollups(books.database)
    await _used(books, team, FIRST)
    async with books.database.transaction() as connection:
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(text("UPDATE usage_buckets SET credits = 9"))
        await connection.execute(text("SET LOCAL session_replication_role = origin"))
        for _ in range(4):
            assert await roller.once() == 0
    assert not await books.execute("SELECT FROM usage_days_closed")
    await _closed(books, roller, 1)
    assert await _total(books) == 9
    [row] = await books.execute("SELECT credits FROM usage_days")
    assert row.credits == 9


async def test_several_processes_sum_each_day_once(books: Books, database_url: str) -> None:
    team = await books.team()
    for day in range(DAYS):
        await _used(books, team, FIRST + timedelta(days=day))
    others = [Database(database_url) for _ in range(3)]
    rollers = [Rollups(other) for other in others]
    await _closed(books, rollers[0], DAYS)
    for _ in range(5):
        await books.execute("UPDATE usage_buckets SET credits = credits + 1")
        summed = await asyncio.gather(*(roller.once() for roller in rollers))
        assert sum(summed) >= 1
        for roller in rollers:
            await roller.once()
        assert not await _marks(books)
        rows = await books.execute("SELECT credits FROM usage_days UNION SELECT credits FROM usage_buckets")
        assert len(rows) == 1
    for other in others:
        await other.close()


async def test_a_pass_is_bounded_and_begins_with_the_oldest(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    team, roller = await books.team(), Rollups(books.database)
    for day in range(DAYS):
        await _used(books, team, FIRST + timedelta(days=day))
    monkeypatch.setattr(rollups, "MOST_DAYS", 1)
    for number in range(1, DAYS + 1):
        await _closed(books, roller, number)
        [row] = await books.execute("SELECT max(utc_day) AS last FROM usage_days_closed")
        assert row.last == FIRST.date() + timedelta(days=number - 1)


async def test_what_happens_today_is_not_marked_and_not_closed(books: Books) -> None:
    team, roller = await books.team(), Rollups(books.database)
    key = await books.key(team)
    for _ in range(3):
        await books.settle(await books.place(team, key, 3), 2)
    await books.execute("UPDATE usage_buckets SET failed = 1")
    assert not await _marks(books)
    await _used(books, team, FIRST)
    await _closed(books, roller, 1)
    assert await books.execute("SELECT FROM usage_days_closed WHERE utc_day = :day", day=FIRST.date())


async def test_every_change_of_a_day_before_is_marked(books: Books) -> None:
    team, roller = await books.team(), Rollups(books.database)
    await _used(books, team, FIRST)
    await _used(books, team, FIRST + timedelta(days=1))
    assert await _marks(books) == {FIRST.date(): 1, FIRST.date() + timedelta(days=1): 1}
    await _closed(books, roller, 2)
    assert not await _marks(books)
    await books.execute("UPDATE usage_buckets SET starts_at = starts_at + interval '1 day' WHERE starts_at > :at",
                        at=FIRST)  # fmt: skip
    assert await _marks(books) == {FIRST.date() + timedelta(days=1): 1, FIRST.date() + timedelta(days=2): 1}
    await _closed(books, roller, 3)
    await books.execute("DELETE FROM usage_buckets WHERE starts_at = :at", at=FIRST)
    assert await _marks(books) == {FIRST.date(): 1}
    assert await _total(books) == 7
    await roller.once()
    assert [row.utc_day for row in await books.execute("SELECT utc_day FROM usage_days")] == [
        FIRST.date() + timedelta(days=2)
    ]


PLANTED = {
    "a sum": "UPDATE usage_days SET credits = credits + 1",
    "a sum gone": "DELETE FROM usage_days",
    "a sum of nothing": "UPDATE usage_days SET model = 'another'",
}


@pytest.mark.parametrize("planted", PLANTED)
async def test_a_wrong_sum_is_found_and_mended(books: Books, planted: str) -> None:
    team, roller = await books.team(), Rollups(books.database)
    hold = await _held(books, team, await books.key(team), FIRST, uuid4(), quote=0)
    await books.execute(
        "INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled)"
        " SELECT id, 'place', team_id, key_id, counters, quote, 0 FROM holds WHERE id = :hold",
        hold=hold,
    )
    await _closed(books, roller, 1)
    assert (await books.proof()).ok
    await books.execute(PLANTED[planted])
    proof = await books.proof()
    assert {(one.kind, one.team_id) for one in proof.differences} == {("usage", team)}
    assert "2026-03-06, the day's sum, spenders m o" in [one.subject for one in proof.differences]
    await _repaired(books, repairable(proof.differences))
    assert (await books.proof()).ok
    await roller.once()
    assert not await _marks(books)
    assert (await books.proof()).ok
    [row] = await books.execute("SELECT model, requests, credits FROM usage_days")
    assert (row.model, row.requests, row.credits) == ("m", 1, 0)


async def test_a_repair_of_rows_leaves_the_report_right(books: Books) -> None:
    team, roller = await books.team(), Rollups(books.database)
    await _held(books, team, await books.key(team), FIRST, uuid4())
    await _closed(books, roller, 1)
    await books.execute("UPDATE usage_buckets SET credits = 77")
    await roller.once()
    assert await _total(books) == 77
    await _repaired(books, [team])
    assert await _total(books) == 0
    assert await _marks(books) == {FIRST.date(): 1}
    await roller.once()
    assert (await _total(books), await _marks(books)) == (0, Counter())


async def _repaired(books: Books, owners: list[UUID]) -> None:
    for team in owners:
        async with books.database.transaction() as connection:
            assert (await repair(connection, "test", team)).buckets == 1


async def test_the_schema_goes_back_and_comes_again(books: Books, database_url: str) -> None:
    team = await books.team()
    await _used(books, team, FIRST)
    await _closed(books, Rollups(books.database), 1)
    migrate.downgrade(database_url, "0013")
    await books.execute("UPDATE usage_buckets SET credits = 8")
    migrate.upgrade(database_url)
    assert await _total(books) == 8
    await _closed(books, Rollups(books.database), 1)
    assert await _total(books) == 8


async def test_upstream_keys_are_told_by_days(books: Books) -> None:
    team = await books.team()
    key, one, other = await books.key(team), uuid4(), uuid4()
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for before, upstream in ((0, one), (1, one), (6, one), (7, other), (29, one), (30, one)):
        hold = await _held(books, team, key, today - timedelta(days=before), upstream)
        await books.end(hold, Conclusion(state="settled", settled=2**before))
    await _held(books, team, key, today, one)
    roller = Rollups(books.database)
    expected = {
        one: (
            Through(requests=1, credits=1),
            Through(requests=3, credits=1 + 2 + 64),
            Through(requests=4, credits=1 + 2 + 64 + 2**29),
        ),
        other: (Through(), Through(), Through(requests=1, credits=128)),
    }
    for summed in (False, True):
        async with books.database.autocommit() as connection:
            assert await upstream_credits(connection, today.date()) == expected
        if not summed:
            yesterday_too = datetime.now(UTC) - today >= rollups.CLOSES_AFTER
            await _closed(books, roller, 4 + yesterday_too)
