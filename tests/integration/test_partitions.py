"""Partitions made ahead: beside paid calls, by whoever comes first, and with what lies in a default partition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import exc, make_url, text

from gateway.cli.doctor import database as doctor
from gateway.db import migrate, partitions
from gateway.db.engine import Database
from gateway.db.partitions import NOT_MADE, ensure_partitions
from gateway.ids import uuid7
from tests.integration.ledger.book import RELEASED, Book, address, settled, try_place

PARENTS = ("attempts", "holds", "ledger_entries")
LATER = date(2031, 11, 20)
NAMES = [f"{parent}_{month}" for month in ("2031_11", "2031_12", "2032_01", "2032_02") for parent in PARENTS]


@pytest.fixture
async def book(database_url: str) -> AsyncIterator[Book]:
    opened = Book.open(database_url)
    yield opened
    await opened.close()


def attached(book: Book) -> set[str]:
    found = book.rows(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'r'"
    )
    return {row["relname"] for row in found}


def in_default(book: Book, parent: str) -> int:
    return int(book.rows(f"SELECT count(*) AS number FROM {parent}_default")[0]["number"])


def old_hold(book: Book, at: datetime) -> None:
    """A released hold, with entries and a send, whose id is of this instant."""
    team, ident = uuid7(), uuid7(int(at.timestamp() * 1000))
    book.sql.execute(
        "INSERT INTO holds (id, team_id, key_id, request_id, operation, model, quote, state, ended_at, placed_at)"
        " VALUES (%s, %s, 'k', 'r', 'o', 'm', 5, 'released', now(), %s)",
        (ident, team, at),
    )
    for kind, held in (("place", 5), ("release", -5)):
        book.sql.execute(
            "INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled)"
            " VALUES (%s, %s, %s, 'k', '{}', %s, 0)",
            (ident, kind, team, held),
        )
    book.sql.execute(
        "INSERT INTO attempts (hold_id, number, upstream_key_id, outcome, milliseconds) VALUES (%s, 1, %s, 'x', 1)",
        (ident, team),
    )


async def test_this_month_and_the_next_three_are_made_once_by_whoever_comes_first(book: Book) -> None:
    others = [Database(book.url) for _ in range(4)]
    found = await asyncio.gather(*(ensure_partitions(one, LATER) for one in (book.database, *others)))
    for one in others:
        await one.close()
    assert sorted(name for made in found for name in made) == sorted(NAMES)
    assert set(NAMES) <= attached(book)
    assert await ensure_partitions(book.database, LATER) == []
    [row] = book.rows("SELECT reloptions FROM pg_class WHERE relname = 'holds_2031_12'")
    assert row["reloptions"] == ["fillfactor=80"]


async def test_a_partition_made_ahead_is_what_a_migrated_one_is(book: Book) -> None:
    await ensure_partitions(book.database, LATER)
    now = datetime.now(UTC)
    for parent in PARENTS:
        shapes = []
        for month in (f"{now:%Y_%m}", "2031_11"):
            name = f"{parent}_{month}"
            query = """
                SELECT pg_get_indexdef(indexrelid) AS found FROM pg_index WHERE indrelid = %s::regclass
                UNION ALL SELECT concat(tgname, ' ', tgtype, ' ', tgenabled)
                FROM pg_trigger WHERE tgrelid = %s::regclass
                UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass
            """
            parts = {str(row["found"]) for row in book.rows(query, name, name, name)}
            shapes.append({" ".join(part.split(" ON ")[-1].replace(name, "").split()) for part in parts})
        assert shapes[0] == shapes[1], parent


@pytest.mark.parametrize("change", ["UPDATE {} SET held = 0", "DELETE FROM {}", "TRUNCATE {}"])
async def test_a_partition_made_ahead_is_append_only(book: Book, change: str) -> None:
    await ensure_partitions(book.database, LATER)
    old_hold(book, datetime(2031, 11, 3, tzinfo=UTC))
    for name in ("ledger_entries_2031_11", "ledger_entries_default"):
        if name.endswith("default"):
            old_hold(book, datetime(2019, 1, 1, tzinfo=UTC))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            book.sql.execute(sql.SQL(change.replace("{}", name)))


async def test_rows_in_a_default_partition_move_into_their_month(book: Book) -> None:
    for month in (8, 9, 11):
        old_hold(book, datetime(2031, month, 1, tzinfo=UTC))
    old_hold(book, datetime(2019, 1, 1, tzinfo=UTC))  # of no month anybody makes
    before = {parent: book.rows(f"SELECT * FROM {parent} ORDER BY 1, 2") for parent in PARENTS}
    made = await ensure_partitions(book.database, LATER)
    months = ("2031_08", "2031_09")
    assert set(made) == set(NAMES) | {f"{parent}_{month}" for parent in PARENTS for month in months}
    assert {parent: book.rows(f"SELECT * FROM {parent} ORDER BY 1, 2") for parent in PARENTS} == before
    assert [in_default(book, parent) for parent in PARENTS] == [1, 1, 2]
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        book.sql.execute("DELETE FROM ledger_entries_default")


async def test_many_rows_are_left_to_the_migration_command(
    book: Book, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "MOST_MOVED", 1)
    at = datetime.now(UTC)
    for parent in PARENTS:
        book.sql.execute(f"DROP TABLE {parent}_{at:%Y_%m}")
    for _ in range(2):
        old_hold(book, at)
    await ensure_partitions(book.database)
    assert NOT_MADE in caplog.text
    assert f"attempts_{at:%Y_%m}" not in attached(book)
    assert in_default(book, "holds") == 2
    migrate.upgrade(book.url)
    assert {f"{parent}_{at:%Y_%m}" for parent in PARENTS} <= attached(book)
    assert [in_default(book, parent) for parent in PARENTS] == [0, 0, 0]


async def test_a_table_left_by_a_process_that_was_killed_is_attached(book: Book) -> None:
    book.sql.execute("SELECT gateway_prepare_partition('holds', '2031-12-01')")
    assert "holds_2031_12" not in attached(book)
    await ensure_partitions(book.database, LATER)
    assert set(NAMES) <= attached(book)


async def test_paid_calls_go_on_while_partitions_are_made(book: Book) -> None:
    team = book.team()
    await book.quota(team.owner(), "month", 1_000_000)
    ledgers = [book.process() for _ in range(3)]
    done = 0
    over = asyncio.Event()

    async def caller(number: int) -> None:
        nonlocal done
        while not over.is_set():
            ledger = ledgers[number % 3]
            placed = await try_place(ledger, team.order())
            assert placed is not None
            await ledger.end(placed.id, settled(1) if number % 2 else RELEASED)
            done += 1

    callers = [asyncio.create_task(caller(number)) for number in range(9)]
    for year in range(2031, 2035):
        assert len(await ensure_partitions(book.database, date(year, 6, 1))) == 12
    over.set()
    await asyncio.gather(*callers)  # a call that failed is raised here
    assert done > 50
    assert await book.differences() == ()


async def test_a_lock_that_is_not_to_be_had_is_logged_and_calls_wait_no_longer_than_for_it(
    book: Book, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "TRIES", 2)
    monkeypatch.setattr(partitions, "PAUSE_SECONDS", 0.01)
    with psycopg.connect(address(book.url)) as other:
        other.execute("SELECT FROM attempts_default")  # a transaction that stays open: a dump, a report
        assert await ensure_partitions(book.database, LATER) == []
        assert NOT_MADE in caplog.text
        assert caplog.records[-1].__dict__["reason"] == "locked"
    assert set(await ensure_partitions(book.database, LATER)) == set(NAMES)


async def test_a_login_that_may_not_make_tables_is_told_by_log_and_doctor(
    book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    name = make_url(book.url).database
    book.sql.execute(
        f"""
        DO $$ BEGIN CREATE ROLE bound_{name} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO bound_{name};
        """
    )
    bound = Database(make_url(book.url).set(username=f"bound_{name}").render_as_string(hide_password=False))
    try:
        assert await ensure_partitions(bound, LATER) == []
        assert NOT_MADE in caplog.text
        assert "permission denied" in caplog.records[-1].__dict__["reason"]
        async with bound.autocommit() as connection:
            assert not await connection.scalar(doctor.MAY_MAKE_TABLES)
        async with book.database.autocommit() as connection:
            assert await connection.scalar(doctor.MAY_MAKE_TABLES)
    finally:
        await bound.close()
        book.sql.execute(f"DROP OWNED BY bound_{name}; DROP ROLE bound_{name}")


async def test_a_month_that_was_pruned_does_not_come_back(book: Book) -> None:
    book.sql.execute(
        "INSERT INTO pruned_months (month, holds, entries, attempts, tasks, records, settled, kept, actor)"
        " VALUES ('2031-10-01', 0, 0, 0, 0, 0, 0, 0, 'test')"
    )
    old_hold(book, datetime(2031, 9, 1, tzinfo=UTC))
    assert set(await ensure_partitions(book.database, LATER)) == set(NAMES)
    assert in_default(book, "holds") == 1
    async with book.database.transaction() as connection:
        with pytest.raises(exc.DBAPIError, match="2031-09 was pruned"):
            await connection.execute(text("SELECT gateway_attach_partition('holds', '2031-09-01', NULL)"))
        await connection.rollback()
