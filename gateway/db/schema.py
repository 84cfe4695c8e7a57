"""The schema's revision: what the database has, and what this release is written for.

Every start asks, so this reads the names of the migrations' files and leaves Alembic to who migrates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, create_engine, event, exc, text

LOCK_MILLISECONDS = 400  # less than `database.lock_timeout`
_PACKAGE = Path(__file__).resolve().parent.parent


class SchemaOutdatedError(Exception):
    """The database is behind this release; the message names the command that mends it."""


class MigrationError(Exception):
    """The database could not be reached or a migration failed; nothing of it remains."""


def folder() -> Path:
    """Where the migrations lie."""
    shipped = _PACKAGE / "_shipped" / "migrations"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "migrations"


@cache
def known() -> frozenset[str]:
    """Every revision this release knows: a migration's file is named by it, `0001_first_schema.py`."""
    return frozenset(
        path.name.partition("_")[0] for path in (folder() / "versions").glob("[0-9][0-9][0-9][0-9]_*.py")
    )


@cache
def head() -> str:
    """The revision this release is written for."""
    return max(known())


def current(url: str) -> str | None:
    """The database's revision, None when it has never been migrated."""
    with connected(url) as connection:
        return revision_of(connection)


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


def revision_of(connection: Connection) -> str | None:
    """What the connection's database is at."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A synchronous connection without the application's time-outs; MigrationError when there is none."""
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
