"""Migrations: `db upgrade|downgrade|current`, and the check that lets a process serve.

Runners take one advisory lock, so two at once are safe: the second waits and finds nothing to do. They run in their
own synchronous connection without the application's time-outs; `lock_timeout` keeps a waiting DDL statement from
queueing every reader behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, exc, text

ADVISORY_LOCK = 0x7078_6770  # "pxgp"
_PACKAGE = Path(__file__).resolve().parent.parent


class SchemaOutdatedError(Exception):
    """The database is behind this release; the message names the command that mends it."""


class MigrationError(Exception):
    """The database could not be reached or a migration failed; nothing of it remains."""


def upgrade(url: str, revision: str = "head") -> tuple[str | None, str | None]:
    """Brings the schema up to `revision`; returns (before, after)."""
    return _run(url, lambda config: command.upgrade(config, revision))


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
    with _connection(url) as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": ADVISORY_LOCK})
        try:
            before = _revision_of(connection)
            connection.execute(text("SET lock_timeout = '5s'"))
            connection.commit()
            verb(_config(connection))
            connection.commit()
            return before, _revision_of(connection)
        except exc.DBAPIError as error:
            connection.rollback()
            raise MigrationError(f"The migration failed and was rolled back: {error.orig}") from error
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": ADVISORY_LOCK})
            connection.commit()


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
        connect_args={"connect_timeout": 5, "application_name": "pixapi-gateway db"},
    )
    try:
        with engine.connect() as connection:
            yield connection
    except exc.OperationalError as error:
        raise MigrationError(f"Postgres cannot be reached: {error.orig}") from error
    finally:
        engine.dispose()
