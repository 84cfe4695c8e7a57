"""Everything works by way of PgBouncer in transaction mode, where each transaction may have another connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date

import pytest
from sqlalchemy import text

from gateway.credits.aging import Ages, Aging
from gateway.credits.rollups import Rollups
from gateway.db import migrate, schema
from gateway.db.engine import Database, LockedError
from gateway.db.partitions import ensure_partitions
from tests.integration.ledger.book import RELEASED, Book, settled, try_place
from tests.pooler import PROGRAM, Pooler, pooler

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="PgBouncer is not installed: nothing proves that it works"
)
SIZE = 6
# What docs/operations.md tells people to set, where their login does not have it.
CONNECT_QUERY = "SET statement_timeout = '2s'; SET lock_timeout = '1s'; SET timezone = 'UTC'"


@pytest.fixture
def pooled(database_url: str) -> Iterator[Pooler]:
    with pooler(database_url, size=SIZE, connect_query=CONNECT_QUERY) as found:
        yield found


async def test_many_processes_share_few_connections_and_every_credit_is_right(
    database_url: str, pooled: Pooler
) -> None:
    book = Book.open(pooled.url(database_url))
    try:
        team = book.team(keys=2)
        await book.quota(team.owner(), "month", 100)
        await book.quota(team.owner(0), "day", 60)
        ledgers = [book.process(pool_wait=20.0) for _ in range(8)]
        placed = await asyncio.gather(
            *(try_place(ledgers[number % 8], team.order(key=number % 2)) for number in range(150))
        )
        admitted = [one for one in placed if one is not None]
        assert len(admitted) == 100
        await asyncio.gather(
            *(
                ledgers[number % 8].end(one.id, settled(1) if number % 3 else RELEASED)
                for number, one in enumerate(admitted)
            )
        )
        book.proven()
        assert await book.differences() == ()
        [pool] = [one for one in pooled.show("POOLS") if str(one["database"]).startswith("test_")]
        servers = int(str(pool["sv_active"])) + int(str(pool["sv_idle"])) + int(str(pool["sv_used"]))
        assert 1 <= servers <= SIZE
    finally:
        await book.close()


async def test_background_work_works(database_url: str, pooled: Pooler) -> None:
    database = Database(pooled.url(database_url))
    try:
        assert len(await ensure_partitions(database, date(2031, 5, 1))) == 12
        assert await Rollups(database).once() == 0
        aged = await Aging(database, Ages(longest_call=1, task_max_age=1, settle_unknown_after=1)).once()
        assert (aged.unknown, aged.settled) == (0, 0)
    finally:
        await database.close()


def test_migrations_work_and_leave_no_lock(empty_database_url: str) -> None:
    with pooler(empty_database_url, size=SIZE) as found:
        url = found.url(empty_database_url)
        assert migrate.upgrade(url) == (None, schema.head())
        assert migrate.upgrade(url) == (schema.head(), schema.head())
        assert migrate.downgrade(url) == (schema.head(), f"{int(schema.head()) - 1:04}")
        assert migrate.upgrade(url)[1] == schema.head()


async def test_time_outs_hold_on_every_connection_by_the_pooler_s_connect_query(
    database_url: str, pooled: Pooler
) -> None:
    database = Database(pooled.url(database_url), statement_timeout=2.0, lock_timeout=1.0)

    async def limits() -> tuple[int, str, str]:
        async with database.transaction() as connection:
            await connection.execute(
                text("SELECT pg_sleep(0.2)")
            )  # so that all connections are wanted at once
            query = "SELECT pg_backend_pid(), current_setting('statement_timeout'), current_setting('lock_timeout')"
            row = (await connection.execute(text(query))).one()
            return row[0], row[1], row[2]

    try:
        found = await asyncio.gather(*(limits() for _ in range(SIZE)))
        assert len({pid for pid, *_ in found}) == SIZE
        assert {tuple(rest) for _, *rest in found} == {("2s", "1s")}
        async with database.transaction() as holder:
            await holder.execute(text("SELECT pg_advisory_xact_lock(7)"))
            with pytest.raises(LockedError):
                async with database.transaction() as other:
                    await other.execute(text("SELECT pg_advisory_xact_lock(7)"))
    finally:
        await database.close()
