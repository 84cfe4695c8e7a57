"""Postgres and Redis for tests: those of TEST_DATABASE_URL and TEST_REDIS_URL, else embedded ones; and databases."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from gateway.cli.embedded import EmbeddedServers


@contextmanager
def database_servers() -> Iterator[tuple[str, str]]:
    """`(admin_database_url, redis_url)`, valid until the block ends.

    TEST_DATABASE_URL (a login that may create databases) and TEST_REDIS_URL are used when set. What is not set
    is an embedded server of this process alone, so each pytest-xdist worker has its own.
    """
    database_url, redis_url = os.environ.get("TEST_DATABASE_URL"), os.environ.get("TEST_REDIS_URL")
    if database_url and redis_url:
        yield database_url, redis_url
        return
    data = Path(tempfile.mkdtemp(prefix="pxg-test-"))
    data.chmod(0o711)  # root's servers run as another user, who has to pass through
    servers = EmbeddedServers(data, durable=False)
    try:
        with servers:
            yield database_url or servers.database_url, redis_url or servers.redis_url
    finally:
        for folder in {data, servers.home}:
            shutil.rmtree(folder)


def create_database(admin_url: str, name: str, template: str | None = None) -> str:
    """Create the database `name`, a copy of `template` if given (with nobody connected to that); return its URL."""
    command = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template:
        command += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
    execute(admin_url, command)
    return make_url(admin_url).set(database=name).render_as_string(hide_password=False)


def drop_database(admin_url: str, name: str) -> None:
    """Drop the database `name` if it exists, ending connections to it."""
    execute(admin_url, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def execute(admin_url: str, command: sql.Composed) -> None:
    """Run one command outside a transaction."""
    address = make_url(admin_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(command)
