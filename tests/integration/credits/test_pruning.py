"""Months that are taken out: nothing that people are told changes, the proof holds at every moment, and any stop is
taken up by the next run."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.cli.output import CommandFailed
from gateway.cli.pruning import prune_in
from gateway.credits import holds as listed
from gateway.credits import ledger as ledgers
from gateway.credits import month_export, pruning, usage
from gateway.credits.pruning import MonthNotPrunedError, survey
from gateway.credits.rollups import upstream_credits
from gateway.credits.terms import SentVia
from gateway.credits.usage import Range
from gateway.credits.verify import Proof, repairable, verify
from gateway.db.engine import Database, StatementRefusedError
from gateway.db.partitions import ensure_partitions
from gateway.errors import GatewayError
from gateway.ids import uuid7
from gateway.repeats.records import Records
from tests.integration.ledger.book import (
    CREDIT,
    RELEASED,
    UNKNOWN,
    UPSTREAM_KEY,
    Book,
    Team,
    new_task,
    settled,
    try_place,
)

TODAY = datetime.now(UTC)
NOW = max(TODAY, TODAY.replace(day=1, hour=2))  # the month before ended more than an hour ago


def months_ago(count: int) -> date:
    """The first day of the month so many months before this one."""
    year, month = divmod(NOW.year * 12 + NOW.month - 1 - count, 12)
    return date(year, month + 1, 1)


def at(month: date, day: float) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC) + timedelta(days=day)


class Past:
    """Calls of the past: the database's clock and the ids of holds are those of any moment."""

    def __init__(self, book: Book, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.book, self.random, self.skew = book, random.Random(seed), timedelta()
        self.now = NOW
        monkeypatch.setattr(ledgers, "uuid7", lambda: uuid7(int((self.now + self.skew).timestamp() * 1000)))

    def go(self, moment: datetime) -> None:
        self.now = moment
        self.book.set_clock(moment)

    async def call(self, team: Team, key: int = 0, model: str = "m") -> UUID | None:
        """One call, placed and ended in some way, a task's now and then."""
        chance = self.random
        order = team.order(chance.randint(1, 5 * CREDIT), key, model=model, request_id=f"r{chance.random()}")
        placed = await try_place(self.book.ledger, order)
        if placed is None:
            return None
        sent = [SentVia(upstream_key_id=UPSTREAM_KEY, outcome="completed", status=200, milliseconds=5)]
        if chance.random() < 0.3:
            task = f"task_{placed.id}"
            await self.book.ledger.bind(placed.id, order, new_task(task), sent)
        end = chance.choice(["settled", "settled", "overrun", "nothing", "released", "unknown", "estimated"])
        if end == "unknown":
            await self.book.ledger.end(placed.id, UNKNOWN, sent)
        cost = {"overrun": order.quote + 7, "nothing": 0, "estimated": order.quote}.get(end, order.quote - 1)
        word = RELEASED if end == "released" else settled(cost / CREDIT, estimated=end == "estimated")
        if word.state == "settled":
            assert word.settled is not None
        await self.book.ledger.end(placed.id, word, sent)
        self.book.sql.execute(
            "UPDATE tasks SET ended_at = now(), credits_cost = h.settled, status = 'completed' FROM holds h"
            " WHERE h.id = tasks.hold_id AND h.id = %s",
            (placed.id,),
        )
        return placed.id


@pytest.fixture
async def past(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Past]:
    book = Book.open(database_url, movable_clock=True)
    book.sql.execute(  # carried entries are made by this one
        "CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
        " 'SELECT pg_catalog.clock_timestamp() + by FROM clock.ahead'"
    )
    book.upstream_key()
    yield Past(book, 1, monkeypatch)
    await book.close()


async def history(past: Past, months: int = 4, calls: int = 12) -> list[Team]:
    """Traffic of some months up to now, with quotas of every kind that come, change and go."""
    book, chance = past.book, past.random
    past.go(at(months_ago(months), 0.3))
    teams = [book.team("UTC", 2), book.team("America/Los_Angeles", 2)]
    for team in teams:
        await book.quota(team.owner(), "total", 100_000)
        await book.quota(team.owner(), "month", 10_000)
        await book.quota(team.owner(0), "day", 8, enforce=False)
    for ago in range(months, -1, -1):
        month = months_ago(ago)
        for day in sorted(chance.uniform(0, 27.5) for _ in range(calls)):
            if at(month, day) >= NOW:
                break
            past.go(at(month, day))
            await past.call(chance.choice(teams), chance.randint(0, 1), chance.choice(["m", "n"]))
        if ago == months - 1:
            team = chance.choice(teams)
            await book.quota(team.owner(1), "week", 50)
            await book.quota(team.owner(1), "total", 5000)  # begins with what was spent before it
        if ago == 1:
            await book.remove(teams[0].owner(0), "day")
        if ago:
            await edge(past, teams[0], months_ago(ago - 1))
    past.go(NOW)
    return teams


async def edge(past: Past, team: Team, month: date) -> None:
    """Around a month's first instant, by clocks that do not agree: on either side of it."""
    for ahead, skew in ((20, -30), (-20, 30)):
        past.go(at(month, 0) + timedelta(milliseconds=ahead))
        past.skew = timedelta(milliseconds=skew)
        await past.call(team)
    past.skew = timedelta()


async def told(book: Book, teams: list[Team]) -> dict[str, Any]:
    """Everything reports and quotas say."""
    found: dict[str, Any] = {}
    which = Range(start=months_ago(7), end=months_ago(-4))
    async with book.database.transaction() as connection:
        ways: list[list[usage.Dimension]] = [["team", "model"], ["key", "operation"], ["day", "team"]]
        for by in ways:
            found[" ".join(by)] = await usage.statement(connection, which, by)
        for ago in (0, 31, 62, 93, 124):
            day = NOW.date() - timedelta(days=ago)
            found[f"through {ago}"] = await upstream_credits(connection, day)
    for table in ("quotas", "usage_buckets", "usage_days", "upstream_key_days"):
        found[table] = book.rows(f"SELECT * FROM {table} t ORDER BY t::text")
    counters = "SELECT id, quota_id, starts_at, ends_at, settled, held FROM quota_periods ORDER BY id"
    found["counters"] = book.rows(counters)
    return found


async def prune(
    book: Book, before: date, folder: Path | None = None, stop: str | None = None
) -> list[dict[str, Any]]:
    def step(what: str) -> None:
        if what == stop:
            raise Killed(what)

    return list((await prune_in(book.database, before, folder, step, "test"))["months"])


class Killed(BaseException):
    """The process is gone in this step."""


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_people_are_told_changes(past: Past, tmp_path: Path, seed: int) -> None:
    past.random.seed(seed)
    book = past.book
    teams = await history(past)
    await prune(book, months_ago(5))  # sums the days
    before = await told(book, teams)
    lines = {
        name: book.rows(f"SELECT * FROM {name}") for name in ("holds", "ledger_entries", "attempts", "tasks")
    }
    assert await book.differences() == ()

    for ago, gone in ((3, [4]), (1, [3, 2])):
        done = await prune(book, months_ago(ago), tmp_path)
        assert [one["month"] for one in done] == [f"{months_ago(n):%Y-%m}" for n in gone]
        assert await told(book, teams) == before
        assert await book.differences() == ()
        names = [f"holds_{months_ago(n):%Y_%m}" for n in gone]
        assert book.rows("SELECT FROM pg_class WHERE relname = ANY (%s)", names) == []

    # What is gone is in the exports, and what is not is still there.
    for name in ("holds", "ledger_entries", "attempts"):
        key = "id" if name == "holds" else "hold_id"
        exported = {row[key] for row in written(tmp_path, name)}
        left = {str(row[key]) for row in book.rows(f"SELECT * FROM {name}")}
        assert {str(row[key]) for row in lines[name]} <= exported | left
        assert len(exported & left) <= 8, "the few of a month's end"
    assert len(written(tmp_path, "tasks")) + len(book.rows("SELECT FROM tasks")) >= len(lines["tasks"])

    # Life goes on, and what was carried forward is carried on once more.
    for team in teams:
        for which in (0, 1):
            await past.call(team, which)
    assert await book.differences() == ()
    past.go(at(months_ago(-3), 1))
    await past.call(teams[0])
    await prune(book, months_ago(-3))
    assert await book.differences() == ()
    assert book.rows("SELECT FROM ledger_entries WHERE kind = 'carry' AND reason LIKE 'the entries of %%'")
    past.go(at(months_ago(-3), 2))
    await past.call(teams[1])
    assert await book.differences() == ()


def written(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of all months' exports, each of which is as its manifest says."""
    rows: list[dict[str, Any]] = []
    for place in sorted(folder.iterdir()):
        assert month_export.check(place) == []
        manifest = json.loads((place / "manifest.json").read_text())
        path = place / f"{name}.jsonl.gz"
        assert path.stat().st_mode & 0o777 == 0o600
        found = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        assert len(found) == manifest["files"][path.name]["rows"]
        if name == "holds":
            assert sum(row["settled"] or 0 for row in found) == manifest["sums"]["settled"]
            assert sum(row["quote"] for row in found) == manifest["sums"]["quote"]
        rows += found
    return rows


STEPS = (
    "freezing",
    "exporting",
    "comparing",
    "carrying sums forward",
    "deleting tasks",
    "detaching",
    "committing",
)


async def test_a_run_that_is_killed_in_any_step_leaves_the_proof_clean_and_is_taken_up(
    past: Past, tmp_path: Path
) -> None:
    book = past.book
    teams = await history(past, months=3, calls=8)
    await prune(book, months_ago(4))
    before = await told(book, teams)
    month = months_ago(3)
    for step in (*STEPS, "dropping"):
        with pytest.raises(Killed):
            await prune(book, months_ago(2), tmp_path, f"{month:%Y-%m}: {step}")
        assert await book.differences() == (), step
        assert await told(book, teams) == before, step
        assert bool(book.rows("SELECT FROM pruned_months")) == (step == "dropping")
        await past.call(teams[0])
        before = await told(book, teams)
    [left] = book.rows("SELECT relname FROM pg_class WHERE relname = %s", f"holds_{month:%Y_%m}")
    assert left
    assert await prune(book, months_ago(2), tmp_path) == []
    assert book.rows("SELECT FROM pg_class WHERE relname = %s", f"holds_{month:%Y_%m}") == []
    assert await book.differences() == ()
    assert month_export.check(tmp_path / f"{month:%Y-%m}") == []
    [audited] = book.rows("SELECT actor, subject_id, detail FROM audit_entries WHERE action = 'ledger.prune'")
    assert (audited["actor"], audited["subject_id"]) == ("test", f"{month:%Y-%m}")
    [noted] = book.rows("SELECT manifest_sha256 FROM pruned_months")
    assert audited["detail"]["manifest_sha256"] == noted["manifest_sha256"]


ALTERED = {
    "counter": "UPDATE quota_periods SET settled = settled + 1 WHERE id = (SELECT min(id) FROM quota_periods)",
    "usage": "UPDATE usage_buckets SET credits = 1 WHERE starts_at = (SELECT min(starts_at) FROM usage_buckets)",
    "usage gone": "DELETE FROM usage_buckets WHERE starts_at = (SELECT min(starts_at) FROM usage_buckets)",
    "entries": "DELETE FROM holds WHERE id = (SELECT id FROM holds ORDER BY id DESC LIMIT 1)",
}


@pytest.mark.parametrize("kind", ALTERED)
async def test_an_altered_ledger_is_still_found_out(past: Past, kind: str) -> None:
    book = past.book
    await history(past, months=2, calls=6)
    await prune(book, months_ago(0))
    assert await book.differences() == ()
    book.sql.execute(ALTERED[kind])
    found = await book.differences()
    assert kind.split()[0] in {one.kind for one in found}
    if kind != "entries":
        assert bool(repairable(found)) == (kind == "counter"), "nothing is left to rebuild pruned usage from"


@pytest.mark.parametrize("table", ["pruned_months", "carried_usage"])
async def test_what_was_carried_forward_cannot_be_changed(past: Past, table: str) -> None:
    past.go(at(months_ago(2), 3))
    await past.call(past.book.team())
    past.go(NOW)
    await prune(past.book, months_ago(1))
    assert past.book.rows(f"SELECT FROM {table}")
    for verb in (f"DELETE FROM {table}", f"UPDATE {table} SET month = now()", f"TRUNCATE {table}"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            past.book.sql.execute(verb)


async def test_paid_calls_go_on_meanwhile(past: Past, tmp_path: Path) -> None:
    book = past.book
    teams = await history(past, months=3, calls=6)
    ledgers_, over, done = [book.process() for _ in range(2)], asyncio.Event(), 0

    async def caller(number: int) -> None:
        nonlocal done
        ledger, team = ledgers_[number % 2], teams[number % 2]
        while not over.is_set():
            placed = await try_place(
                ledger, team.order(1000)
            )  # None: refused by a quota, which is no failure
            if placed is not None:
                await ledger.end(placed.id, settled(0.0005))
                done += 1

    callers = [asyncio.create_task(caller(number)) for number in range(6)]
    assert len(await prune(book, months_ago(0), tmp_path)) == 3
    over.set()
    await asyncio.gather(*callers)  # a call that failed is raised here
    assert done > 20
    assert await book.differences() == ()


async def test_what_is_in_the_way_is_named_and_nothing_goes(past: Past) -> None:
    book = past.book
    past.go(at(months_ago(2), 3))
    team = book.team()
    await book.quota(team.owner(), "week", 100)
    placed = await try_place(book.ledger, team.order())
    assert placed is not None
    past.go(at(months_ago(2), 5))
    await ensure_partitions(book.database)
    said = (await survey(book.database, months_ago(1)))[0].obstacles
    for word in ("not over", "held or unknown", "period", "not summed"):
        assert any(word in one for one in said), said
    with pytest.raises(MonthNotPrunedError, match="not over"):
        await pruning.freeze(book.database, months_ago(2))
    assert book.rows("SELECT FROM pg_trigger WHERE tgname = 'frozen'") == []

    past.go(NOW)
    with pytest.raises(CommandFailed, match="1 holds of it or of earlier months are held or unknown"):
        await prune(book, months_ago(1))
    await book.ledger.end(placed.id, UNKNOWN)
    with pytest.raises(CommandFailed, match="held or unknown"):
        await prune(book, months_ago(1))
    await book.ledger.end(placed.id, RELEASED)
    book.sql.execute("UPDATE quota_periods SET settled = settled + 1")
    with pytest.raises(CommandFailed, match=r"nothing was pruned: 1 differences"):
        await prune(book, months_ago(1))
    book.sql.execute("UPDATE quota_periods SET settled = settled - 1")
    assert [one["holds"] for one in await prune(book, months_ago(1))] == [1]


async def test_a_frozen_month_does_not_change(past: Past) -> None:
    book = past.book
    await history(past, months=2, calls=5)
    await prune(book, months_ago(3))
    await pruning.freeze(book.database, months_ago(2))
    await pruning.freeze(book.database, months_ago(2))
    name = f"{months_ago(2):%Y_%m}"
    for verb in (f"UPDATE holds_{name} SET quote = 1", f"DELETE FROM attempts_{name}"):
        with pytest.raises(psycopg.Error, match="is being pruned") as refused:
            book.sql.execute(verb)
        assert refused.value.sqlstate == "PX001"


async def test_a_call_by_a_clock_of_long_ago_is_told_apart_and_holds_up_no_other(past: Past) -> None:
    book = past.book
    teams = await history(past, months=2, calls=5)
    await prune(book, months_ago(3))
    await pruning.freeze(book.database, months_ago(2))
    past.skew = at(months_ago(2), 3) - past.now
    late = asyncio.create_task(book.ledger.place(teams[0].order(1000, model="late")))
    await asyncio.sleep(0)
    past.skew = timedelta()
    assert await try_place(book.ledger, teams[0].order(1000))
    with pytest.raises(StatementRefusedError, match=f"holds_{months_ago(2):%Y_%m} is being pruned"):
        await late


async def test_a_month_is_left_to_slow_clocks_for_an_hour(past: Past) -> None:
    book, month = past.book, months_ago(2)
    past.go(at(month, 3))
    await past.call(book.team())
    past.go(at(months_ago(1), 0) + timedelta(minutes=59))
    with pytest.raises(
        CommandFailed, match="ended less than an hour ago, and a gateway whose clock is behind"
    ):
        await prune(book, months_ago(1))
    past.go(at(months_ago(1), 0) + timedelta(minutes=61))
    assert len(await prune(book, months_ago(1))) == 1


async def test_what_is_gone_is_said_to_be_gone(past: Past) -> None:
    book = past.book
    past.go(at(months_ago(2), 3))
    hold = await past.call(book.team())
    past.go(NOW)
    await prune(book, months_ago(1))
    async with book.database.autocommit() as connection:
        with pytest.raises(GatewayError, match=f"placed before {months_ago(1)} has been pruned") as refused:
            await listed.find(connection, str(hold))
        assert (refused.value.status, refused.value.reason) == (404, "hold_not_found")
        with pytest.raises(GatewayError, match="no hold with this id"):
            await listed.find(connection, str(uuid7()))


async def test_one_run_prunes_at_a_time(past: Past, tmp_path: Path) -> None:
    """Two that export into one folder would overwrite each other's files."""
    database = past.book.database
    async with pruning.only_run(database):
        with pytest.raises(MonthNotPrunedError, match="Another run is pruning"):
            await prune_in(database, months_ago(0), tmp_path, lambda _: None, "cli:test")
    assert list(tmp_path.iterdir()) == []


class AboutToCommit:
    """A database whose transactions wait before they commit."""

    def __init__(self, database: Database) -> None:
        self.database, self.waits, self.go_on = database, asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self.database.transaction() as connection:
            yield connection
            self.waits.set()
            await self.go_on.wait()


async def somebody_waits(book: Book) -> None:
    """Until a lock of this database is waited for."""
    here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    while not book.rows(f"SELECT FROM pg_locks WHERE NOT granted AND {here}"):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("turn", ["at once", "in turn"])
async def test_a_proof_that_begins_while_a_month_goes_is_of_after_it(past: Past, turn: str) -> None:
    """Its snapshot must not be older than the partitions it finds."""
    book, month = past.book, months_ago(2)
    await history(past, months=2, calls=4)
    await prune(book, months_ago(4))  # sums the days
    await pruning.freeze(book.database, month)
    late = AboutToCommit(book.database)
    taking = asyncio.create_task(
        pruning.take_out(cast("Database", late), "test", month, None, lambda _: None)
    )
    await late.waits.wait()

    async def proof() -> Proof:
        async with book.database.transaction() as connection:
            return await verify(connection, in_turn=turn == "in turn")

    proving = asyncio.create_task(proof())
    await somebody_waits(book)
    late.go_on.set()
    await taking
    assert (await proving).differences == ()


async def test_a_proof_that_waited_for_its_turn_sees_what_was_done_meanwhile(past: Past) -> None:
    book = past.book
    team = book.team()

    async def proof() -> Proof:
        async with book.database.transaction() as connection:
            return await verify(connection, in_turn=True)

    async with book.database.transaction() as connection:
        await verify(connection)
        waiting = asyncio.create_task(proof())
        await somebody_waits(book)
        placed = await try_place(book.ledger, team.order())
        assert placed is not None
    assert (await waiting).checked.holds == 1


async def test_the_proofs_of_a_prune_have_time_for_large_months(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = []

    async def proof(connection: AsyncConnection, **how: Any) -> Proof:
        found = await verify(connection, **how)
        allowed.append(await connection.scalar(sql("SHOW statement_timeout")))
        return found

    monkeypatch.setattr("gateway.cli.pruning.verify", proof)
    past.go(at(months_ago(2), 3))
    await past.call(past.book.team())
    past.go(NOW)
    await prune(past.book, months_ago(1))
    assert allowed == ["1h", "1h"]


async def test_only_what_a_run_has_detached_is_dropped_and_by_two_at_once_too(past: Past) -> None:
    book, month = past.book, months_ago(2)
    past.go(at(month, 3))
    await past.call(book.team())
    past.go(NOW)
    with pytest.raises(Killed):
        await prune(book, months_ago(1), stop=f"{month:%Y-%m}: dropping")
    own = f"ledger_entries_{month:%Y_%m}"  # of an export, say
    book.sql.execute(f"DROP TABLE {own}; CREATE TABLE {own} AS SELECT 'read back from an export' AS row")
    left = [f"attempts_{month:%Y_%m}", f"holds_{month:%Y_%m}"]
    assert await asyncio.gather(*(pruning.drop_left_over(book.database) for _ in range(2))) == [left, left]
    assert await prune(book, months_ago(1)) == []
    assert book.rows(f"SELECT row FROM {own}")


RECORD = """
INSERT INTO idempotency_records (hold_id, team_id, key_id, operation, fingerprint, state, body_path, expires_at)
VALUES (%s, %s, 'k', 'o', '', 'ended', %s, now() - interval '1 day')
"""


async def test_records_that_expire_meanwhile_are_in_nobodys_way_and_none_leaves_its_file_behind(
    past: Past, tmp_path: Path
) -> None:
    book, month = past.book, months_ago(2)
    past.go(at(month, 3))
    team = book.team()
    holds = [await past.call(team) for _ in range(3)]
    past.go(NOW)
    for hold, path in zip(holds, ("a-file", None, None), strict=True):
        book.sql.execute(RECORD, (hold, team.id, path))
    await prune(book, months_ago(4))
    await pruning.freeze(book.database, month)
    exported = await month_export.export(book.database, month, tmp_path)
    book.sql.execute("DELETE FROM idempotency_records WHERE hold_id = %s", (holds[1],))
    done = await pruning.take_out(book.database, "test", month, exported, lambda _: None)
    assert (exported.counts.records, done.counts.records) == (3, 2)
    assert await Records(book.database).clear() == ["a-file"]
    assert book.rows("SELECT FROM idempotency_records") == []


async def test_what_changed_since_the_export_is_named(past: Past, tmp_path: Path) -> None:
    book, month = past.book, months_ago(2)
    past.go(at(month, 3))
    team = book.team()
    while not book.rows("SELECT FROM tasks"):
        await past.call(team)
    past.go(NOW)
    await prune(book, months_ago(4))
    await pruning.freeze(book.database, month)
    exported = await month_export.export(book.database, month, tmp_path)
    book.sql.execute("DELETE FROM tasks")
    with pytest.raises(MonthNotPrunedError, match="1 tasks were exported and 0 are there"):
        await pruning.take_out(book.database, "test", month, exported, lambda _: None)


async def test_an_export_of_another_installation_is_left_alone(past: Past, tmp_path: Path) -> None:
    book, month = past.book, months_ago(2)
    past.go(at(month, 3))
    await past.call(book.team())
    past.go(NOW)
    place = tmp_path / f"{month:%Y-%m}"
    with pytest.raises(Killed):  # its own, of a run that was stopped after it, is taken up
        await prune(book, months_ago(1), tmp_path, f"{month:%Y-%m}: comparing")
    await month_export.export(book.database, month, tmp_path)

    manifest = json.loads((place / "manifest.json").read_text())
    manifest["files"]["ledger_entries.jsonl.gz"]["sha256"] = "that of another installation"
    for foreign in (json.dumps(manifest), "no manifest of ours"):
        (place / "manifest.json").write_text(foreign)
        before = {path.name: path.read_bytes() for path in place.iterdir()}
        with pytest.raises(MonthNotPrunedError, match=f"{place} has another export, of another installation"):
            await prune(book, months_ago(1), tmp_path)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert book.rows("SELECT FROM pruned_months") == []
    assert len(await prune(book, months_ago(1), tmp_path / "own")) == 1


async def test_what_was_exported_is_on_the_disk_with_the_names_of_its_folders(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, real = [], os.fsync

    def fsync(number: int) -> None:
        synced.append(Path(f"/proc/self/fd/{number}").readlink())
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    place = tmp_path / "exports" / f"{months_ago(2):%Y-%m}"
    past.go(at(months_ago(2), 3))
    await past.call(past.book.team())
    past.go(NOW)
    await prune(past.book, months_ago(1), place.parent)
    assert synced[-2:] == [place, place.parent]
    assert len(synced) == 5 + 1 + 1 + 2, "each file, their names, the manifest, its name and the month's"
