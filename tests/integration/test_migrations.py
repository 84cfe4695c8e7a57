"""Migrations on a real Postgres: there and back, two runners at once, and the same schema as `tables.py`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, exc, inspect, text

from gateway.db import migrate, schema
from gateway.db.tables import metadata
from gateway.ids import lowest_uuid7, uuid7

PARTITIONED = ("holds", "ledger_entries", "attempts")


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def rows(connection: Connection, query: str, **values: Any) -> Sequence[Any]:
    return connection.execute(text(query), values).all()


def tables_of(url: str) -> set[str]:
    with connected(url) as connection:
        return set(inspect(connection).get_table_names()) - {"alembic_version"}


# There and back --------------------------------------------------------------------------------------------


def test_the_files_names_are_the_revisions() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.folder()))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [schema.head()]
    assert {script.revision for script in scripts.walk_revisions()} == schema.known()


def test_up_down_and_up_again(empty_database_url: str) -> None:
    url = empty_database_url
    assert schema.current(url) is None
    assert migrate.upgrade(url) == (None, schema.head())
    made = tables_of(url)
    assert set(metadata.tables) <= made
    assert migrate.upgrade(url) == (schema.head(), schema.head())
    assert migrate.downgrade(url, "base") == (schema.head(), None)
    assert tables_of(url) == set()
    with connected(url) as connection:
        left = rows(connection, "SELECT proname FROM pg_proc WHERE proname LIKE 'gateway%'")
        assert left == []
    assert migrate.upgrade(url) == (None, schema.head())
    assert tables_of(url) == made


def test_two_runners_at_once_are_safe(empty_database_url: str) -> None:
    found: list[tuple[str | None, str | None]] = []
    start = threading.Barrier(3)

    def run() -> None:
        start.wait(10)
        found.append(migrate.upgrade(empty_database_url))

    runners = [threading.Thread(target=run) for _ in range(3)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join(60)
    head = schema.head()
    assert sorted(found, key=str) == sorted([(None, head), (head, head), (head, head)], key=str)
    with connected(empty_database_url) as connection:
        locks = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND database ="
        assert (
            rows(connection, locks + " (SELECT oid FROM pg_database WHERE datname = current_database())")
            == []
        )


def test_a_failed_migration_leaves_nothing(empty_database_url: str) -> None:
    with connected(empty_database_url) as connection:
        connection.execute(text("CREATE TABLE teams (id int)"))
        connection.commit()
    with pytest.raises(schema.MigrationError, match="rolled back"):
        migrate.upgrade(empty_database_url)
    assert schema.current(empty_database_url) is None
    assert tables_of(empty_database_url) == {"teams"}


def test_an_unreachable_server_is_named() -> None:
    with pytest.raises(schema.MigrationError, match="cannot be reached"):
        schema.current("postgresql+psycopg://nobody@127.0.0.1:1/none")


def test_an_older_schema_is_refused_with_the_command_that_mends_it(empty_database_url: str) -> None:
    with pytest.raises(schema.SchemaOutdatedError, match=r"is empty.*'pixapi-gateway db upgrade'"):
        schema.check(empty_database_url)
    migrate.upgrade(empty_database_url)
    schema.check(empty_database_url)
    migrate.downgrade(empty_database_url, "base")
    with pytest.raises(schema.SchemaOutdatedError, match="pixapi-gateway db upgrade"):
        schema.check(empty_database_url)


def test_a_newer_schema_is_served(database_url: str) -> None:
    with connected(database_url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.commit()
    schema.check(database_url)


# The schema ------------------------------------------------------------------------------------------------


def test_the_schema_is_what_tables_say(module_database_url: str) -> None:
    partition = "SELECT c.relname FROM pg_class c WHERE c.relispartition"
    with connected(module_database_url) as connection:
        partitions = {row.relname for row in rows(connection, partition)}

        def counts(_object: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
            return not (kind == "table" and name in partitions)

        context = MigrationContext.configure(
            connection,
            opts={"include_object": counts, "compare_type": True, "compare_server_default": True},
        )
        assert compare_metadata(context, metadata) == []


# What a schema consists of, in Postgres's own words; partitions are the migrations' alone.
PARTS = {
    "tables": """SELECT c.relname, c.relkind::text, c.reloptions, pg_get_partkeydef(c.oid) FROM pg_class c
        WHERE c.relnamespace = CAST(:schema AS regnamespace) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND c.relname <> 'alembic_version'""",
    "columns": """SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text,
        pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = CAST(:schema AS regnamespace) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'alembic_version'""",
    "constraints": """SELECT c.relname, n.conname, pg_get_constraintdef(n.oid) FROM pg_constraint n
        JOIN pg_class c ON c.oid = n.conrelid WHERE n.connamespace = CAST(:schema AS regnamespace)
        AND NOT c.relispartition AND c.relname <> 'alembic_version'""",
    "indexes": """SELECT c.relname, pg_get_indexdef(c.oid) FROM pg_class c
        WHERE c.relnamespace = CAST(:schema AS regnamespace) AND c.relkind IN ('i', 'I') AND NOT c.relispartition
        AND c.relname NOT LIKE 'alembic%'""",
}


@pytest.mark.parametrize("part", PARTS)
def test_postgres_says_the_same_of_both(module_database_url: str, part: str) -> None:
    with connected(module_database_url) as connection:
        connection.execute(text("CREATE SCHEMA expected"))
        connection.execute(text("SET search_path = expected"))
        metadata.create_all(connection)
        found, expected = (
            {
                tuple(str(value).replace(f"{schema}.", "") for value in row)
                for row in rows(connection, PARTS[part], schema=schema)
            }
            for schema in ("public", "expected")
        )
        connection.rollback()
    assert found == expected
    assert len(found) >= len(metadata.tables)


# Append-only -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["ledger_entries", "audit_entries"])
@pytest.mark.parametrize(
    "change", ["UPDATE {} SET actor = 'x'", "DELETE FROM {}", "TRUNCATE {}", "TRUNCATE {} CASCADE"]
)
def test_ledger_and_audit_are_append_only(module_database_url: str, table: str, change: str) -> None:
    with connected(module_database_url) as connection:
        _entry(connection, table)
        connection.commit()
        before = rows(connection, f"SELECT count(*) FROM {table}")
        with pytest.raises(exc.ProgrammingError, match="append-only: correct it with a new entry"):
            connection.execute(text(change.format(table)))
        connection.rollback()
        assert rows(connection, f"SELECT count(*) FROM {table}") == before


def test_a_partition_of_the_ledger_is_append_only_too(module_database_url: str) -> None:
    with connected(module_database_url) as connection:
        _entry(connection, "ledger_entries")
        (row,) = rows(connection, "SELECT tableoid::regclass::text AS name FROM ledger_entries LIMIT 1")
        connection.commit()
        for change in (f"UPDATE {row.name} SET held = 0", f"DELETE FROM {row.name}"):
            with pytest.raises(exc.ProgrammingError, match="append-only"):
                connection.execute(text(change))
            connection.rollback()


def _entry(connection: Connection, table: str) -> None:
    if table == "audit_entries":
        statement = (
            "INSERT INTO audit_entries (id, actor, action, subject_type, subject_id, detail)"
            " VALUES (:id, 'a', 'team.create', 'team', 't', '{}')"
        )
    else:
        statement = (
            "INSERT INTO ledger_entries (hold_id, kind, team_id, counters, held, settled)"
            " VALUES (:id, 'place', :id, '{}', 1, 0)"
        )
    connection.execute(text(statement), {"id": uuid7()})


# Partitions ------------------------------------------------------------------------------------------------


def partition_of(connection: Connection, hold: UUID) -> str:
    statement = (
        "INSERT INTO holds (id, team_id, key_id, request_id, operation, model, quote)"
        " VALUES (:id, :team, 'k', 'r', 'o', 'm', 1) RETURNING tableoid::regclass::text"
    )
    return str(connection.scalar(text(statement), {"id": hold, "team": uuid4()}))


def milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def test_a_hold_lands_in_its_month_and_anything_else_in_the_default(database_url: str) -> None:
    with connected(database_url) as connection:
        rows(connection, "SELECT gateway_ensure_partitions('2031-01-15', 2)")
        last = milliseconds(datetime(2031, 2, 1, tzinfo=UTC)) - 1
        assert partition_of(connection, uuid7(last)) == "holds_2031_01"
        assert partition_of(connection, uuid7(last + 1)) == "holds_2031_02"
        assert partition_of(connection, lowest_uuid7(datetime(2031, 1, 1, tzinfo=UTC))) == "holds_2031_01"
        assert (
            partition_of(connection, uuid7(milliseconds(datetime(2031, 3, 1, tzinfo=UTC)))) == "holds_default"
        )
        assert partition_of(connection, uuid7(0)) == "holds_default"
        now = connection.scalar(text("SELECT to_char(now(), 'YYYY_MM')"))
        assert partition_of(connection, uuid7()) == f"holds_{now}"


def test_bounds_are_the_ids_of_the_month_s_first_instant(database_url: str) -> None:
    with connected(database_url) as connection:
        for year, month in [(1970, 1), (2024, 2), (2026, 12), (2100, 7)]:
            first = datetime(year, month, 1, tzinfo=UTC)
            query = text("SELECT gateway_month_bound(make_date(:year, :month, 1))")
            assert connection.scalar(query, {"year": year, "month": month}) == lowest_uuid7(first)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles"])
def test_bounds_do_not_depend_on_the_session_s_zone(database_url: str, zone: str) -> None:
    with connected(database_url) as connection:
        connection.execute(text(f"SET timezone = '{zone}'"))
        found = connection.scalar(text("SELECT gateway_month_bound('2026-03-01')"))
        assert found == lowest_uuid7(datetime(2026, 3, 1, tzinfo=UTC))


def test_partitions_are_made_ahead_once(database_url: str) -> None:
    with connected(database_url) as connection:

        def ensure(month: str, months: int) -> int:
            return int(
                connection.scalar(
                    text("SELECT gateway_ensure_partitions(CAST(:m AS date), :n)"), {"m": month, "n": months}
                )
                or 0
            )

        assert connection.scalar(text("SELECT gateway_ensure_partitions(current_date, 3)")) == 0
        assert ensure("2030-11-30", 3) == 9
        assert ensure("2030-11-01", 3) == 0
        assert ensure("2030-12-31", 3) == 3
        names = {
            f"{table}_{month}"
            for table in PARTITIONED
            for month in ("2030_11", "2030_12", "2031_01", "2031_02")
        }
        assert names <= set(inspect(connection).get_table_names())
        (row,) = rows(connection, "SELECT reloptions FROM pg_class WHERE relname = 'holds_2030_11'")
        assert row.reloptions == ["fillfactor=80"]
