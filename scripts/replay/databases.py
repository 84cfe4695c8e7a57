"""Postgres and Valkey as compose sets them up, from the embedded packages, on loopback of this namespace."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.cli.embedded_binaries import account_for, find_binaries
from scripts.replay.containers import ReplayError, stop, wait_until


@contextmanager
def databases(services: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Both, healthy, until the block ends; their health checks are compose's (Valkey's as its PING)."""
    started: list[subprocess.Popen[bytes]] = []
    account = account_for(folder / "postgres")
    if account is None:
        raise ReplayError("run this as root")
    binaries = find_binaries(account)
    home = folder / "databases"
    home.mkdir()
    os.chown(home, account.uid, account.gid)

    def start(command: list[str], name: str) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=home,
                env={"PATH": os.environ["PATH"]},
                stdout=log,
                stderr=log,
                user=account.uid,
                group=account.gid,
                extra_groups=[],
            )

    wanted = services["postgres"]["environment"]
    secret = home / "password"
    secret.write_text(wanted["POSTGRES_PASSWORD"], "utf-8")
    os.chown(secret, account.uid, account.gid)
    cluster = str(home / "postgres")
    user = wanted["POSTGRES_USER"]
    made = start(
        [
            str(binaries.initdb),
            "-D",
            cluster,
            "-U",
            user,
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "-E",
            "UTF8",
        ],
        "initdb",
    )
    if made.wait(60) != 0:
        raise ReplayError((folder / "initdb.log").read_text("utf-8", "replace"))
    try:
        listen = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={home}"]
        _, *options = services["postgres"]["command"]
        postgres = start([str(binaries.postgres), "-D", cluster, *listen, *options], "postgres")
        started.append(postgres)
        ready = services["postgres"]["healthcheck"]["test"]
        tools = binaries.postgres.parent
        wait_until(
            lambda: subprocess.run([tools / ready[1], *ready[2:]], capture_output=True).returncode == 0,
            "postgres",
        )
        create = [tools / "psql", "-h", "127.0.0.1", "-U", user, "-d", "postgres", "-c"]
        subprocess.run(
            [*create, f'CREATE DATABASE "{wanted["POSTGRES_DB"]}"'],
            check=True,
            capture_output=True,
            env={**os.environ, "PGPASSWORD": wanted["POSTGRES_PASSWORD"]},
        )
        program, *arguments = services["valkey"]["command"]
        if program != "valkey-server":
            raise ReplayError(f"valkey runs {program}")
        started.append(start([str(binaries.valkey), *arguments], "valkey"))
        wait_until(_pings, "valkey")
        yield
    finally:
        for process in reversed(started):
            stop(process, 20, signal.SIGINT if process is started[0] else signal.SIGTERM)


def _pings() -> bool:
    try:
        with socket.create_connection(("127.0.0.1", 6379), 2) as client:
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
    except OSError:
        return False
