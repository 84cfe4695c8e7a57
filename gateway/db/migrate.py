"""Migrations: `db upgrade` and `db downgrade`.

Runners take one advisory lock, so two at once are safe: the second waits and finds nothing to do. They run in their
own synchronous connection without the application's time-outs. A DDL statement that waits for a lock makes everybody
wait who comes after it, so it waits for less long than a paid call does, and the migration is tried again.

Nothing is set or locked for longer than a transaction, so that a pooler may give each to another server connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import uniform

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, exc, text

from gateway.db.engine import LOCK_NOT_AVAILABLE
from gateway.db.partitions import ensure_after_migration
from gateway.db.schema import MigrationError, connected, folder, head, revision_of

ADVISORY_LOCK = 0x7078_6770  # "pxgp"
TRIES, PAUSE_SECONDS = 60, 1.0


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


def _run(url: str, verb: Callable[[Config], None]) -> tuple[str | None, str | None]:
    with connected(url) as connection, _turn(url):
        try:
            before = revision_of(connection)
            connection.commit()
            _in_tries(connection, verb)
            connection.commit()
            return before, revision_of(connection)
        except exc.DBAPIError as error:
            connection.rollback()
            raise MigrationError(f"The migration failed and was rolled back: {error.orig}") from error


def _make_partitions(url: str) -> None:
    with connected(url) as connection, _turn(url):
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
    with connected(url) as connection:
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        try:
            yield
        finally:
            connection.rollback()


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
