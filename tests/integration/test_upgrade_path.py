"""Old processes keep serving while the schema goes forward: migrations only add, and paid calls go on under them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from gateway.db import migrate, schema
from gateway.db.engine import Database
from tests.integration.ledger.book import RELEASED, Book, address, new_task, settled, try_place

# 0010 gave sessions columns that the release before did not fill; since then migrations only add.
FIRST = 10
# The migration after this one wants more of `ledger_entries` than who writes to it allows.
BEFORE_LOCKS = "0016"
REVISIONS = sorted(one for one in schema.known() if int(one) > FIRST)
BEFORE_HEAD = f"{int(schema.head()) - 1:04}"

COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable = 'YES' OR column_default IS NOT NULL
           OR is_identity = 'YES' AS optional
    FROM information_schema.columns WHERE table_schema = 'public'
      AND table_name NOT IN (SELECT relname FROM pg_class WHERE relispartition) AND table_name <> 'alembic_version'
"""
FUNCTIONS = """
    SELECT oid::regprocedure::text, pg_get_function_result(oid) FROM pg_proc WHERE proname LIKE 'gateway%'
"""
TRIGGERS_THAT_REFUSE = """
    SELECT tgrelid::regclass::text, tgname FROM pg_trigger
    WHERE tgname LIKE 'append_only%' AND tgrelid NOT IN (SELECT oid FROM pg_class WHERE relispartition)
"""


def asked(url: str, query: str) -> set[tuple[Any, ...]]:
    with psycopg.connect(address(url)) as connection:
        return set(connection.execute(query).fetchall())


def test_a_migration_takes_nothing_away_that_the_release_before_uses(empty_database_url: str) -> None:
    url = empty_database_url
    migrate.upgrade(url, f"{FIRST:04}")
    for revision in REVISIONS:
        columns, functions = asked(url, COLUMNS), asked(url, FUNCTIONS)
        guards = asked(url, TRIGGERS_THAT_REFUSE)
        migrate.upgrade(url, revision)
        now = {row[:3]: row[3] for row in asked(url, COLUMNS)}
        assert {row[:3] for row in columns} <= set(now), (
            f"{revision} takes a column away, or changes its type"
        )
        stricter = [row[:3] for row in columns if row[3] and not now[row[:3]]]
        assert stricter == [], f"{revision}: the release before may leave these out"
        tables = {row[0] for row in columns}
        added = [row for row, optional in now.items() if row[0] in tables and not optional]
        assert set(added) <= {row[:3] for row in columns}, (
            f"{revision}: the release before does not fill these"
        )
        assert functions <= asked(url, FUNCTIONS), f"{revision} changes how a function is called"
        assert guards <= asked(url, TRIGGERS_THAT_REFUSE), f"{revision} takes a guard of the ledger away"


class DatabaseBefore(Database):
    """As the release before asks: its ledger's functions take the items alone, since 0019 and 0020 how long to wait."""

    async def call(self, function: str, *arguments: object) -> list[Any]:
        return await super().call(function, *arguments[:1])


class Traffic:
    """Workers of a release that was started before: ledgers with the time-outs people run with."""

    def __init__(self, url: str) -> None:
        self.book = Book.open(url)
        self.book.upstream_key()
        self.team = self.book.team()
        self.ledgers = [self.book.process(DatabaseBefore(url, pool_wait=10.0)) for _ in range(3)]
        self.done, self.slowest, self._number = 0, 0.0, 0
        self._over = asyncio.Event()

    async def call(self, number: int) -> None:
        ledger, order = self.ledgers[number % 3], self.team.order()
        while not self._over.is_set():
            began = time.monotonic()
            placed = await try_place(ledger, order)
            assert placed is not None
            if number % 3 == 0:
                self._number += 1
                await ledger.bind(placed.id, order, new_task(f"task_{self._number}"), [])
            await ledger.end(placed.id, settled(1) if number % 2 else RELEASED)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.done += 1
            await asyncio.sleep(0.002)

    @contextmanager
    def running(self) -> Iterator[list[asyncio.Task[None]]]:
        yield [asyncio.create_task(self.call(number)) for number in range(9)]
        self._over.set()


@pytest.mark.parametrize("start", ["0012", BEFORE_HEAD])
async def test_paid_calls_go_on_while_the_schema_goes_forward(empty_database_url: str, start: str) -> None:
    url = empty_database_url
    migrate.upgrade(url, start)
    traffic = Traffic(url)
    await traffic.book.quota(traffic.team.owner(), "month", 1_000_000)
    with ThreadPoolExecutor(1) as threads, traffic.running() as workers:
        await asyncio.sleep(0.5)
        before = traffic.done
        migrating = asyncio.get_running_loop().run_in_executor(threads, migrate.upgrade, url)
        assert (await migrating)[1] == schema.head()
        during = traffic.done
        await asyncio.sleep(0.5)
    await asyncio.gather(*workers)  # a call that failed is raised here
    assert before < during < traffic.done
    assert await traffic.book.differences() == ()
    print(
        f"{traffic.done} calls, {during - before} of them while migrating, the slowest {traffic.slowest:.2f} s"
    )
    await traffic.book.close()


async def test_a_migration_waits_for_a_long_transaction_without_stopping_calls(
    empty_database_url: str,
) -> None:
    url = empty_database_url
    migrate.upgrade(url, BEFORE_LOCKS)
    traffic = Traffic(url)
    with ThreadPoolExecutor(1) as threads, traffic.running() as workers:
        with psycopg.connect(address(url)) as report:
            # As a dump or a report holds it.
            report.execute("LOCK TABLE ledger_entries IN ROW EXCLUSIVE MODE")
            migrating = asyncio.get_running_loop().run_in_executor(threads, migrate.upgrade, url)
            await asyncio.sleep(3)
            assert not migrating.done()
            assert traffic.done > 20
        assert (await migrating)[1] == schema.head()
    await asyncio.gather(*workers)
    assert traffic.slowest < 1.5
    assert await traffic.book.differences() == ()
    await traffic.book.close()
