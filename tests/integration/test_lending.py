"""Connections that calls hand on to each other, on a real Postgres: the pool is not asked, and nothing else changes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, text

from gateway.db import lending
from gateway.db.engine import Database
from gateway.errors import GatewayError

SIZE = 3


@pytest.fixture
async def database(module_database_url: str) -> AsyncIterator[Database]:
    database = Database(module_database_url, pool_size=SIZE, pool_wait=0.3, statement_timeout=0.5)
    yield database
    await database.close()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection stays with the calls for a moment only."""
    monkeypatch.setattr(lending, "LENT_SECONDS", 0.1)


async def pid(database: Database) -> int:
    found: int = (await database.call("pg_backend_pid"))[0].pg_backend_pid
    return found


async def pid_of_others(database: Database) -> int:
    async with database.autocommit() as connection:
        return int(await connection.scalar(text("SELECT pg_backend_pid()")) or 0)


def checkouts(database: Database) -> Callable[[], int]:
    """How often the pool was asked from now on."""
    seen = []
    event.listen(database._engine.sync_engine, "checkout", lambda *_: seen.append(1))
    return lambda: len(seen)


def out_of_pool(database: Database) -> int:
    pool: Any = database._engine.pool
    return int(pool.checkedout())


def end_backends(url: str, *pids: int) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for one in pids:
            assert connection.execute("SELECT pg_terminate_backend(%s, 5000)", (one,)).fetchone() == (True,)


async def test_the_next_call_has_the_last_one_s_and_the_pool_is_not_asked(database: Database) -> None:
    asked = checkouts(database)
    assert len({await pid(database) for _ in range(10)}) == 1
    assert asked() == 1


async def test_what_lies_here_counts_as_free(database: Database) -> None:
    assert database.connections() == (0, SIZE)
    call = asyncio.create_task(database.call("pg_sleep", 0.1))
    await asyncio.sleep(0.05)
    assert database.connections() == (1, SIZE - 1)
    await call
    assert (database.connections(), out_of_pool(database)) == ((0, SIZE), 1)


@pytest.mark.usefixtures("short")
async def test_one_that_nobody_uses_goes_back(database: Database) -> None:
    await pid(database)
    await asyncio.sleep(0.2)
    assert (database.connections(), out_of_pool(database)) == ((0, SIZE), 0)


@pytest.mark.usefixtures("short")
async def test_one_that_is_always_used_goes_back_too(database: Database) -> None:
    """Where the pool looks how old it is, and whether it was cut off."""
    asked = checkouts(database)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        await pid(database)
    assert asked() >= 3


async def test_only_so_many_stay(database: Database) -> None:
    await asyncio.gather(*(database.call("pg_sleep", 0.05) for _ in range(SIZE)))
    assert out_of_pool(database) == lending.MOST
    assert database.connections() == (0, SIZE)


async def test_who_needs_all_of_the_pool_has_all_of_it(database: Database) -> None:
    await asyncio.gather(*(database.call("pg_sleep", 0.05) for _ in range(SIZE)))
    async with database.autocommit() as one, database.transaction() as two, database.autocommit() as three:
        pids = [await connection.scalar(text("SELECT pg_backend_pid()")) for connection in (one, two, three)]
        assert len(set(pids)) == SIZE
        assert database.connections() == (SIZE, 0)
        with pytest.raises(GatewayError):
            await pid(database)
    assert await pid(database) in pids


async def test_who_waits_for_one_gets_it_when_a_call_ends(database: Database) -> None:
    async with database.autocommit() as one, database.autocommit() as two:
        for connection in (one, two):
            await connection.scalar(text("SELECT 1"))
        call = asyncio.create_task(database.call("pg_sleep", 0.1))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        assert await pid_of_others(database)
        assert time.monotonic() - began < 0.25
        await call


async def test_of_two_calls_that_end_together_each_leaves_its_connection_to_who_waits(
    database: Database,
) -> None:
    await asyncio.gather(*(database.call("pg_sleep", 0.05) for _ in range(SIZE)))
    async with database.autocommit():
        calls = [asyncio.create_task(database.call("pg_sleep", 0.1)) for _ in range(SIZE - 1)]
        await asyncio.sleep(0.03)
        waiting = [asyncio.create_task(held_for(database, 0.5)) for _ in range(SIZE - 1)]
        await asyncio.sleep(0.02)
        time.sleep(0.15)  # the loop is busy while both answers come
        assert all(await asyncio.gather(*waiting))
        await asyncio.gather(*calls)


async def held_for(database: Database, seconds: float) -> int:
    async with database.autocommit() as connection:
        found = await connection.scalar(text("SELECT 1"))
        await asyncio.sleep(seconds)
        return int(found or 0)


async def test_one_that_the_server_has_ended_meanwhile_is_replaced(
    database: Database, module_database_url: str
) -> None:
    before = await pid(database)
    end_backends(module_database_url, before)
    assert await pid(database) != before
    assert database.connections() == (0, SIZE)


async def test_when_one_is_cut_none_of_the_others_is_relied_on(
    database: Database, module_database_url: str
) -> None:
    await asyncio.gather(*(database.call("pg_sleep", 0.05) for _ in range(2)))
    assert out_of_pool(database) == 2
    with psycopg.connect(module_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        query = (
            "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        before = {row[0] for row in connection.execute(query)}
    cut = await pid(database)
    with pytest.raises(GatewayError):
        await database.call("pg_terminate_backend", cut)
    assert out_of_pool(database) == 0
    assert await pid(database) not in before
    assert await pid_of_others(database) not in before


async def test_a_silent_server_is_given_up_in_time(database: Database) -> None:
    """The connection that was kept is as well watched as one of the pool."""
    silent = await pid(database)
    os.kill(silent, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(GatewayError) as caught:
            await pid(database)
        assert caught.value.status == 503
        assert 0.5 <= time.monotonic() - began < 4
        assert await pid(database) != silent
    finally:
        os.kill(silent, signal.SIGCONT)


async def test_one_that_was_idle_for_long_is_asked_by_the_pool(database: Database) -> None:
    asked = checkouts(database)
    await pid(database)
    database._lending._idle_seconds = 0.0
    await pid(database)
    assert asked() == 2


async def test_a_refused_statement_leaves_its_connection_to_the_next(database: Database) -> None:
    before = await pid(database)
    with pytest.raises(GatewayError):
        await database.call("pg_sleep", 5)  # longer than a statement may
    assert database.connections() == (0, SIZE)
    assert await pid(database) == before


async def test_one_that_is_cancelled_while_the_pool_has_none_takes_none(database: Database) -> None:
    async with database.autocommit(), database.autocommit(), database.autocommit():
        call = asyncio.create_task(pid(database))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait({call})
    assert database.connections() == (0, SIZE)
    assert await pid(database)


async def test_nothing_is_open_after_the_end(database: Database, module_database_url: str) -> None:
    await pid(database)
    await database.close()
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    with psycopg.connect(module_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        for _ in range(50):
            if connection.execute(query).fetchone() == (0,):
                return
            await asyncio.sleep(0.05)
    pytest.fail("a connection is still open")
