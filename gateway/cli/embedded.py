"""A real Postgres and a real Valkey in one folder, with nothing installed: for `quickstart` and the tests.

Both are direct children that listen on unix sockets only and end with this process, however it ends (on Linux).
Root runs them as another user, and no permission of a folder we did not make is ever changed.
"""

import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg

from gateway.cli.embedded_binaries import (
    Account,
    EmbeddedServerError,
    EmbeddedUnavailable,
    ServerBinaries,
    find_binaries,
)
from gateway.cli.embedded_folders import (
    choose_home,
    lock_folder,
    make_data_folder,
    make_private_folder,
    make_socket_folder,
)
from gateway.cli.embedded_process import ServerProcess

__all__ = ["EmbeddedServerError", "EmbeddedServers", "EmbeddedUnavailable"]

START_SECONDS = 30.0
STOP_SECONDS = 5.0
LEFTOVER_SECONDS = 5.0
POSTGRES_PORT = "5432"  # only a part of the socket's name here
SETTINGS = {
    "listen_addresses": "",
    "port": POSTGRES_PORT,
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Commits still reach the kernel (no synchronous_commit=off), so tests may kill the server and lose nothing.
VOLATILE_SETTINGS = {"fsync": "off"}


class EmbeddedServers:
    """Both servers in the folder `data`, by `with` or by `start` and `stop`; addresses are valid in between.

    A second start continues with the data of the first, also after everything was killed; `durable=False`
    (tests) is faster, and may lose the cluster when the machine itself goes down. Start it on the main thread:
    elsewhere the servers outlive a kill -9 of this process.
    """

    def __init__(self, data: Path, *, durable: bool = True) -> None:
        self.data = data.absolute()
        self.home = self.data
        """Where the cluster lies: `data`, or a folder below /var/lib that data/cluster-location names."""
        self.database_url = ""
        self.redis_url = ""
        self._durable = durable
        self._lock: int | None = None
        self._sockets: Path | None = None
        self._servers: list[ServerProcess] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start both and wait until they answer, 30 s at most.

        EmbeddedServerError says what is wrong; then nothing is left running.
        """
        if self._lock is not None:
            raise EmbeddedServerError(f"The servers in {self.data} are already started by this process")
        try:
            make_data_folder(self.data)
            self._lock = lock_folder(self.data)
            self._start_servers()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise EmbeddedServerError(f"The servers in {self.data} cannot start: {error}") from error
            raise

    def stop(self) -> None:
        """Stop what `start` started, killing what still runs after 5 s; may be called again."""
        deadline = time.monotonic() + STOP_SECONDS
        for server in self._servers:
            server.request_stop()
        for server in self._servers:
            server.stop(deadline)
        self._servers = []
        if self._sockets:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name, "Postgres" and "Valkey", while started."""
        return {server.name: server.pid for server in self._servers if server.pid}

    def _start_servers(self) -> None:
        self.home, account = choose_home(self.data)
        binaries = find_binaries(account)
        cluster = self.home / "postgres"
        deadline = time.monotonic() + START_SECONDS
        self._sockets = sockets = make_socket_folder(self.home, account)
        valkey = ServerProcess("Valkey", self.data / "valkey.log", account, signal.SIGTERM)
        self._servers.append(valkey)
        valkey.start(valkey_command(binaries, sockets))
        if cluster.exists():
            check_cluster(cluster, binaries)
        else:
            self._make_cluster(cluster, binaries, account)
        # SIGINT is Postgres's fast shutdown: it does not wait for clients to leave.
        postgres = ServerProcess("Postgres", self.data / "postgres.log", account, signal.SIGINT)
        self._servers.append(postgres)
        postgres.start(postgres_command(binaries, cluster, sockets, durable=self._durable))
        postgres.wait_ready(lambda: postgres_answers(sockets), deadline)
        valkey.wait_ready(lambda: valkey_answers(sockets), deadline)
        host = quote(str(sockets), safe="")
        self.database_url = f"postgresql+psycopg://postgres@/postgres?host={host}&port={POSTGRES_PORT}"
        self.redis_url = f"unix://{quote(str(sockets / 'valkey.sock'))}"

    def _make_cluster(self, cluster: Path, binaries: ServerBinaries, account: Account | None) -> None:
        """initdb beside `cluster` and rename, so that an interrupted one is never taken for a cluster."""
        half_made = cluster.with_name("postgres.new")
        make_private_folder(half_made, account)
        initdb = ServerProcess("initdb", self.data / "initdb.log", account, signal.SIGTERM)
        self._servers.append(initdb)
        # Trust is safe in this set-up alone: nothing listens on TCP, and the socket and its folder have mode
        # 0700, so only the account that owns the cluster's files anyway gets in, and root.
        options = [
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        ]
        sync = [] if self._durable else ["--no-sync"]
        initdb.start([binaries.initdb, *options, *sync, "-D", half_made])
        initdb.wait_done(time.monotonic() + START_SECONDS)
        half_made.rename(cluster)


def postgres_command(
    binaries: ServerBinaries, cluster: Path, sockets: Path, *, durable: bool
) -> list[str | Path]:
    """The server in the foreground, on a unix socket alone."""
    settings = SETTINGS | ({} if durable else VOLATILE_SETTINGS)
    flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return [binaries.postgres, "-D", cluster, "-k", sockets, *flags]


def valkey_command(binaries: ServerBinaries, sockets: Path) -> list[str | Path]:
    """The server in the foreground, on a unix socket alone; nothing on disk, Redis holds only what may be lost."""
    listen: list[str | Path] = [
        "--port",
        "0",
        "--unixsocket",
        sockets / "valkey.sock",
        "--unixsocketperm",
        "700",
    ]
    return [
        binaries.valkey,
        *listen,
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
        "--dir",
        sockets,
    ]


def postgres_answers(sockets: Path) -> bool:
    try:
        with psycopg.connect(
            host=str(sockets), port=POSTGRES_PORT, user="postgres", dbname="postgres", connect_timeout=2
        ) as connection:
            connection.execute("select 1")
    except psycopg.OperationalError:
        return False
    return True


def valkey_answers(sockets: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        try:
            client.connect(str(sockets / "valkey.sock"))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def check_cluster(cluster: Path, binaries: ServerBinaries) -> None:
    """Refuse a cluster of another major version; wait until a killed predecessor's servers have ended."""
    made_by = (cluster / "PG_VERSION").read_text().strip()
    if made_by != str(binaries.postgres_major):
        raise EmbeddedServerError(
            f"{cluster} was made by Postgres {made_by}, and the one installed here is {binaries.postgres_major}: "
            f"install Postgres {made_by}, or choose another folder"
        )
    pid_file = cluster / "postmaster.pid"
    if sys.platform != "linux" or not pid_file.exists():
        return
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while pids := processes_in(cluster):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"A Postgres still runs in {cluster}: process {min(pids)}; stop it first"
            )
        time.sleep(0.02)
    # Postgres believes a pid file when any process of its user has that pid by now, as happens in containers;
    # we have just seen that no process works in here.
    pid_file.unlink(missing_ok=True)


def processes_in(cluster: Path) -> list[int]:
    """Processes whose working folder is the cluster: the server and all its workers (Linux)."""
    target = cluster.resolve()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and (entry / "cwd").readlink() == target:
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended, or is another user's
    return found
