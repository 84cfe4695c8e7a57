"""A PgBouncer in transaction mode before a test's Postgres, as an unprivileged process of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import make_url

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PORT = "6432"  # only a part of the socket's name


@dataclass(frozen=True, slots=True)
class Pooler:
    """Where it listens, and how it is asked about itself."""

    folder: Path

    def url(self, database_url: str) -> str:
        """The same database by way of the pooler."""
        name = make_url(database_url).database
        return f"postgresql+psycopg://postgres@/{name}?host={quote(str(self.folder), safe='')}&port={PORT}"

    def show(self, what: str) -> list[dict[str, object]]:
        address = f"host={self.folder} port={PORT} dbname=pgbouncer user=postgres"
        with psycopg.connect(address, autocommit=True, row_factory=dict_row) as connection:
            cursor = psycopg.ClientCursor(connection, row_factory=dict_row)
            return list(cursor.execute(f"SHOW {what}").fetchall())


@contextmanager
def pooler(database_url: str, *, size: int, connect_query: str = "") -> Iterator[Pooler]:
    """PgBouncer with at most `size` connections to a database, each of which begins with `connect_query`."""
    assert PROGRAM is not None
    server = Path(str(make_url(database_url).query["host"]))
    owner = (server / f".s.PGSQL.{make_url(database_url).query.get('port', '5432')}").stat()
    folder = Path(tempfile.mkdtemp(prefix="pxg-pooler-"))
    first = f" connect_query='{connect_query.replace(chr(39), chr(39) * 2)}'" if connect_query else ""
    (folder / "pgbouncer.ini").write_text(
        f"""
        [databases]
        * = host={server} port=5432 user=postgres{first}
        [pgbouncer]
        pool_mode = transaction
        default_pool_size = {size}
        max_client_conn = 500
        auth_type = any
        admin_users = postgres
        stats_users = postgres
        listen_addr =
        listen_port = {PORT}
        unix_socket_dir = {folder}
        logfile = {folder}/log
        """
    )
    root = os.geteuid() == 0
    if root:
        os.chown(folder, owner.st_uid, owner.st_gid)
    child = subprocess.Popen(
        [PROGRAM, str(folder / "pgbouncer.ini")],
        user=owner.st_uid if root else None,
        group=owner.st_gid if root else None,
        extra_groups=[] if root else None,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        found, deadline = Pooler(folder), time.monotonic() + 10
        while not (folder / f".s.PGSQL.{PORT}").exists():
            assert child.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield found
    finally:
        child.terminate()
        child.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
