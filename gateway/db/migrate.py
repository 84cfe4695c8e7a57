"""Migrations: `db upgrade|downgrade|current`, and the check that lets a process serve.

Runners take one advisory lock, so two at once are safe: the second waits and finds nothing to do. They run in their
own synchronous connection without the application's time-outs. A DDL statement that waits for a lock makes everybody
wait who comes after it, so it waits for less long than a paid call does, and the migration is tried again.

Nothing is set or locked for longer than a transaction, so that a pooler may give each to another server connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import uniform

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event, exc, text

from gateway.db.engine import LOCK_NOT_AVAILABLE
from gateway.db.partitions import ensure_after_migration

ADVISORY_LOCK = 0x7078_6770  # "pxgp"
LOCK_MILLISECONDS = 400  # less than `database.lock_timeout`
TRIES, PAUSE_SECONDS = 60, 1.0
_PACKAGE = Path(__file__).resolve().parent.parent


class SchemaOutdatedError(Exception):
    """The database is behind this release; the message names the command that mends it."""


class MigrationError(Exception):
    """The database could not be reached or a migration failed; nothing of it remains."""


def upgrade(url: str, revision: str = "head") -> tuple[str | None, str | None]:
    """Brings the schema up to `revision`; returns (before, after).

    At this release's schema the partitions of the coming months are made too. Raises MigrationError.
    """
    found = _run(url, lambda config: command.upgrade(config, revision))
    if found[1] == head():
        _make_partitions(url)
    return found


def downgrade(url: str, revision: str = "-1") -> tuple[str | None, str | None]:
    """Takes the schema back to `revision` (default: one step); returns (before, after)."""
    return _run(url, lambda config: command.downgrade(config, revision))


def current(url: str) -> str | None:
    """The database's revision, None when it has never been migrated."""
    with _connection(url) as connection:
        return _revision_of(connection)


@cache
def head() -> str:
    """The revision this release is written for."""
    return ScriptDirectory.from_config(_config()).as_revision_number("head")  # type: ignore[return-value]


@cache
def known() -> frozenset[str]:
    """Every revision this release knows."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return frozenset(script.revision for script in scripts)


def check(url: str) -> None:
    """Raises SchemaOutdatedError when the schema is older than this release.

    A revision this release does not know is newer: a rolling upgrade, in which older processes keep serving.
    """
    found, wanted = current(url), head()
    if found is None or (found in known() and found != wanted):
        raise SchemaOutdatedError(
            f"The database schema is {'empty' if found is None else f'at {found}'} and this release needs {wanted}. "
            "Run 'pixapi-gateway db upgrade', then start again."
        )


def _run(url: str, verb: Callable[[Config], None]) -> tuple[str | None, str | None]:
    with _connection(url) as connection, _turn(url):
        try:
            before = _revision_of(connection)
            connection.commit()
            _in_tries(connection, verb)
            connection.commit()
            return before, _revision_of(connection)
        except exc.DBAPIError as error:
            connection.rollback()
            raise MigrationError(f"The migration failed and was rolled back: {error.orig}") from error


def _make_partitions(url: str) -> None:
    with _connection(url) as connection, _turn(url):
        try:
            ensure_after_migration(connection)
        except exc.DBAPIError as error:
            connection.rollback()
            done = "The schema is up to date, but not every partition of the coming months was made; run it again"
            raise MigrationError(f"{done}: {error.orig}") from error


def _in_tries(connection: Connection, verb: Callable[[Config], None]) -> None:
    """Each migration is a transaction, so a later try goes on where a lock was not to be had."""
    for left in reversed(range(TRIES)):
        try:
            verb(_config(connection))
            return
        except exc.OperationalError as error:
            connection.rollback()
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE or not left:
                raise
            time.sleep(PAUSE_SECONDS * uniform(0.5, 1))  # noqa: S311 - no secret


@contextmanager
def _turn(url: str) -> Iterator[None]:
    """Waits until no other runner is at it; nobody else begins before the block ends."""
    with _connection(url) as connection:
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        try:
            yield
        finally:
            connection.rollback()


def _config(connection: Connection | None = None) -> Config:
    shipped = _PACKAGE / "_shipped" / "migrations"
    config = Config()
    location = shipped if shipped.is_dir() else _PACKAGE.parent / "migrations"
    config.set_main_option("script_location", str(location).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _connection(url: str) -> Iterator[Connection]:
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            "application_name": "pixapi-gateway db",
            "prepare_threshold": None,
        },
    )

    @event.listens_for(engine, "begin")
    def _limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'")

    try:
        with engine.connect() as connection:
            yield connection
    except exc.OperationalError as error:
        raise MigrationError(f"Postgres cannot be reached: {error.orig}") from error
    finally:
        engine.dispose()
