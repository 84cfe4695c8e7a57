"""The engine on a real Postgres: when it cannot be asked that is a 503 in time, and the next call works again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError

from gateway.db import schema
from gateway.db.direct import Direct
from gateway.db.engine import Database, LockedError, StatementRefusedError, promptly
from gateway.errors import GatewayError
from gateway.patience import POSTGRES

INSERT = text(
    "INSERT INTO audit_entries (id, actor, action, subject_type, subject_id, detail)"
    " VALUES (:id, 'a', 'b', 'c', 'd', '{}')"
)


@pytest.fixture
async def hasty(module_database_url: str) -> AsyncIterator[Database]:
    """Two connections and little patience."""
    database = Database(
        module_database_url, pool_size=2, pool_wait=0.2, statement_timeout=0.3, lock_timeout=0.1
    )
    yield database
    await database.close()


async def run(database: Database, statement: str) -> object:
    async with database.transaction() as connection:
        return await connection.scalar(text(statement))


async def refused(database: Database, statement: str = "SELECT 1") -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await run(database, statement)
    assert (caught.value.status, caught.value.type, caught.value.retry) == (
        503,
        "dependency_unavailable",
        True,
    )
    return caught.value


async def test_an_unreachable_server_is_503() -> None:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    await refused(database)
    await database.close()


async def test_a_slow_statement_is_503_and_the_next_works(hasty: Database) -> None:
    started = time.monotonic()
    await refused(hasty, "SELECT pg_sleep(5)")
    assert time.monotonic() - started < 3
    assert await run(hasty, "SELECT 1") == 1


@pytest.mark.parametrize(
    "statement", ["SELECT 1/0", "SELECT nonsense", "DO $$ BEGIN RAISE EXCEPTION 'ours'; END $$"]
)
async def test_a_statement_that_is_wrong_is_a_defect_of_ours_and_the_next_works(
    hasty: Database, statement: str
) -> None:
    with pytest.raises(StatementRefusedError):
        await run(hasty, statement)
    assert await run(hasty, "SELECT 1") == 1


async def test_a_server_that_may_only_read_is_503(hasty: Database) -> None:
    async def write() -> None:
        async with hasty.transaction() as connection:
            await connection.execute(text("SET TRANSACTION READ ONLY"))
            await connection.execute(INSERT, {"id": uuid4()})

    with pytest.raises(GatewayError) as caught:
        await write()
    assert caught.value.status == 503
    assert await run(hasty, "SELECT 1") == 1


async def test_a_lock_is_not_waited_for_long(hasty: Database) -> None:
    async with hasty.transaction() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(7)"))
        error = await refused(hasty, "SELECT pg_advisory_xact_lock(7)")
        assert "lock timeout" in str(error.__cause__)


async def test_a_full_pool_is_503_after_its_wait(hasty: Database) -> None:
    async with hasty.autocommit(), hasty.autocommit():
        started = time.monotonic()
        await refused(hasty)
        assert 0.2 <= time.monotonic() - started < 2
    assert await run(hasty, "SELECT 1") == 1


async def test_connections_the_server_has_ended_are_replaced(hasty: Database) -> None:
    assert await run(hasty, "SELECT 1") == 1
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    async with hasty.autocommit() as first, hasty.autocommit() as second:
        await second.scalar(text("SELECT 1"))
        await first.execute(
            text(f"SELECT pg_terminate_backend(pid, 200) FROM pg_stat_activity WHERE {others}")
        )
    assert await asyncio.gather(*(run(hasty, "SELECT 1") for _ in range(2))) == [1, 1]


async def test_a_connection_that_was_just_used_is_not_asked_first_whether_it_lives(
    hasty: Database, module_database_url: str
) -> None:
    """What the server was asked last is what its caller asked, with nothing behind it and nothing before."""
    async with hasty.autocommit() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    engine = create_engine(module_database_url)
    last = text("SELECT query, state FROM pg_stat_activity WHERE pid = :pid")
    with engine.connect() as witness:
        assert tuple(witness.execute(last, {"pid": pid}).one()) == ("SELECT pg_backend_pid()", "idle")
        witness.rollback()
        async with hasty.autocommit():
            assert witness.execute(last, {"pid": pid}).one().query == "SELECT pg_backend_pid()"
    engine.dispose()


async def test_one_that_the_server_ended_while_it_lay_idle_is_replaced_at_once(
    hasty: Database, module_database_url: str
) -> None:
    async with hasty.autocommit() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    engine = create_engine(module_database_url)
    with engine.connect() as other:
        assert other.scalar(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    engine.dispose()
    assert await asyncio.gather(*(run(hasty, "SELECT 1") for _ in range(2))) == [1, 1]


async def test_nobody_inherits_an_open_transaction(hasty: Database) -> None:
    """It would take the next one's writes with it."""
    ident = uuid4()
    for _ in range(2):  # both connections
        async with hasty.autocommit() as connection:
            await connection.execute(text("BEGIN"))
    async with hasty.autocommit() as connection:
        await connection.execute(INSERT, {"id": ident})
    async with hasty.autocommit() as one, hasty.autocommit() as two:
        for connection in (one, two):
            there = text("SELECT count(*) FROM audit_entries WHERE id = :id")
            assert await connection.scalar(there, {"id": ident}) == 1


async def test_nor_one_that_a_commit_has_left_open(hasty: Database) -> None:
    """A transaction's way back to autocommit fails on one."""
    ident = uuid4()

    async def nothing() -> None: ...

    for _ in range(2):
        async with hasty.transaction() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await connection.execute(text("SELECT 1"))
            driver.commit = nothing
    async with hasty.autocommit() as connection:
        await connection.execute(INSERT, {"id": ident})
    assert await run(hasty, f"SELECT count(*) FROM audit_entries WHERE id = '{ident}'") == 1


async def test_a_function_s_rows_have_names(hasty: Database) -> None:
    rows = await hasty.call("json_each_text", '{"a": 1, "b": 2}')
    assert [(row.key, row.value) for row in rows] == [("a", "1"), ("b", "2")]


async def test_a_statement_s_rows_hold_what_the_driver_makes_of_them(hasty: Database) -> None:
    ident, moment = uuid4(), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    statement = Direct(
        text(
            "SELECT CAST(:ident AS uuid) AS ident, CAST(:moment AS timestamptz) AS moment,"
            " :data = ANY (:many) AS there,"
            " CAST(:document AS jsonb) AS document, CAST(:nothing AS bytea) AS nothing"
        )
    )
    (row,) = await hasty.ask(
        statement,
        ident=ident,
        moment=moment,
        data=b"\0\xff",
        many=[b"x", b"\0\xff"],
        document='{"a": [1]}',
        nothing=None,
    )
    assert row == (ident, moment, True, {"a": [1]}, None)
    assert row.document == {"a": [1]}


async def test_one_that_writes_has_no_rows_and_commits(hasty: Database) -> None:
    ident = uuid4()
    assert await hasty.ask(Direct(INSERT), id=ident) == []
    assert await run(hasty, f"SELECT count(*) FROM audit_entries WHERE id = '{ident}'") == 1
    with pytest.raises(IntegrityError):
        await hasty.ask(Direct(INSERT), id=ident)
    assert hasty.connections() == (0, 2)


async def test_a_function_fails_as_a_statement_does(hasty: Database, module_database_url: str) -> None:
    with pytest.raises(StatementRefusedError):
        await hasty.call("no_such_function", 1)
    with pytest.raises(GatewayError):
        await hasty.call("pg_sleep", 5)
    other = Database(module_database_url)
    async with other.transaction() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(77)"))
        with pytest.raises(LockedError):
            await hasty.call("pg_advisory_lock", 77)
    await other.close()
    assert len(await hasty.call("now")) == 1
    assert hasty.connections() == (0, 2)
    nowhere = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(GatewayError):
        await nowhere.call("now")
    await nowhere.close()


async def test_a_function_whose_connection_is_cut_is_503_and_the_next_finds_another(hasty: Database) -> None:
    with pytest.raises(GatewayError):
        await hasty.call("pg_terminate_backend", (await hasty.call("pg_backend_pid"))[0].pg_backend_pid)
    assert len(await hasty.call("now")) == 1


async def test_a_function_that_is_cancelled_leaves_its_connection_to_nobody(hasty: Database) -> None:
    before = (await hasty.call("pg_backend_pid"))[0].pg_backend_pid
    task = asyncio.create_task(hasty.call("pg_sleep", 0.2))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert (await hasty.call("pg_backend_pid"))[0].pg_backend_pid != before
    assert hasty.connections() == (0, 2)


async def test_a_cancelled_transaction_is_rolled_back_and_the_next_one_commits(hasty: Database) -> None:
    first, second = uuid4(), uuid4()

    async def stuck() -> None:
        async with hasty.transaction() as connection:
            await connection.execute(INSERT, {"id": first})
            await asyncio.sleep(60)

    for _ in range(3):
        task = asyncio.create_task(stuck())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait({task})
    async with hasty.transaction() as connection:
        await connection.execute(INSERT, {"id": second})
    async with hasty.autocommit() as connection:
        found = await connection.execute(
            text("SELECT id FROM audit_entries WHERE id = ANY (:ids)"), {"ids": [first, second]}
        )
        assert list(found.scalars()) == [second]


async def test_an_integrity_error_is_an_answer_and_rolls_back(hasty: Database) -> None:
    first, second = uuid4(), uuid4()

    async def insert_twice() -> None:
        async with hasty.transaction() as connection:
            for ident in (first, second, first):
                await connection.execute(INSERT, {"id": ident})

    with pytest.raises(IntegrityError):
        await insert_twice()
    assert await run(hasty, f"SELECT count(*) FROM audit_entries WHERE id = '{second}'") == 0


async def test_autocommit_keeps_what_came_before_a_failure(hasty: Database) -> None:
    ident = uuid4()

    async def insert_and_fail() -> None:
        async with hasty.autocommit() as connection:
            await connection.execute(INSERT, {"id": ident})
            await connection.execute(text("SELECT 1/0"))

    with pytest.raises(StatementRefusedError):
        await insert_and_fail()
    assert await run(hasty, f"SELECT count(*) FROM audit_entries WHERE id = '{ident}'") == 1


async def test_a_connection_speaks_utc(hasty: Database) -> None:
    assert await run(hasty, "SHOW timezone") == "UTC"


async def test_a_silent_server_is_given_up_in_time_and_its_work_ends_by_itself() -> None:
    back, ended = asyncio.Event(), []

    async def work(number: int) -> int:
        await back.wait()
        ended.append(number)
        if number == 2:
            raise RuntimeError("nobody listens any more")
        return number

    for number in (1, 2):
        with pytest.raises(GatewayError) as caught, POSTGRES.patience(0.05):
            await promptly(work(number))
        assert caught.value.status == 503
    back.set()
    assert await promptly(work(3)) == 3
    assert ended == [1, 2, 3]


async def test_what_fails_in_time_fails_as_it_is() -> None:
    async def fail() -> None:
        raise RuntimeError("as it is")

    with pytest.raises(RuntimeError, match="as it is"):
        await promptly(fail())


async def test_what_a_request_waited_for_before_is_not_left_for_later() -> None:
    with POSTGRES.patience(0.3) as purse:
        await promptly(asyncio.sleep(0.2))
        assert purse.left < 0.11
        began = time.monotonic()
        with pytest.raises(GatewayError):
            await promptly(asyncio.sleep(5))
        assert time.monotonic() - began < 0.2


async def test_the_text_of_an_error_holds_nothing_that_was_to_be_stored(hasty: Database) -> None:
    async def store(word: str) -> None:
        async with hasty.transaction() as connection:
            await connection.execute(text("CREATE TEMPORARY TABLE hidden (word text CHECK (false))"))
            await connection.execute(text("INSERT INTO hidden VALUES (CAST(:word AS text))"), {"word": word})

    with pytest.raises(IntegrityError) as refused_row:
        await store("a-secret-word")
    with pytest.raises(StatementRefusedError) as refused_statement:
        await store("a-secret-word\0")
    hidden = "SQL parameters hidden"
    assert hidden in str(refused_row.value)
    assert hidden in str(refused_statement.value.__cause__)
    assert "a-secret-word" not in f"{refused_statement.value} {refused_statement.value.__cause__}"


def test_neither_does_that_of_a_migration(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def noted(url: str, **options: Any) -> Engine:
        asked.append(options)
        return create_engine(url, **options)

    monkeypatch.setattr(schema, "create_engine", noted)
    schema.check(database_url)
    assert [options["hide_parameters"] for options in asked] == [True]
