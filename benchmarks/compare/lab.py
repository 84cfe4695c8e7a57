"""Everything one run needs, in one temporary folder: stub, Postgres, Redis, and the targets, started and ended here."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psycopg

from benchmarks.compare import behaving, nginx, peers, product
from benchmarks.compare.children import DidNotStartError
from benchmarks.compare.proc import busy_seconds, cpu_seconds
from benchmarks.compare.targets import DIRECT, GATEWAY, LITELLM, NGINX, PORTKEY, Target, UnavailableError
from gateway.cli.embedded import EmbeddedServers
from gateway.db import migrate
from tests.servers import create_database

FAST, BEHAVING = "fast", "behaving"


@dataclass(slots=True)
class Spent:
    """CPU seconds of one turn: of the target's processes, of Postgres and Redis; and its wall time.

    `noise` is the share of all cores that nobody in the bench used, processes of other machines included.
    """

    target: float = 0.0
    postgres: float = 0.0
    redis: float = 0.0
    seconds: float = 0.0
    noise: float = 0.0


class Lab:
    """A stub of each kind, and the real servers; `target` starts what is compared."""

    def __init__(self, folder: Path, servers: EmbeddedServers, said: Callable[[str], None]) -> None:
        self.folder = folder
        self._servers = servers
        self._said = said
        self._stack = contextlib.ExitStack()
        self._stubs: dict[str, int] = {}
        self._numbers = 0
        self._unavailable: set[str] = set()
        self._running = contextlib.ExitStack()
        self._targets: dict[str, Target] = {}
        self._kind = ""

    def stub(self, kind: str) -> int:
        """The port of the stub of this kind, started at its first use."""
        if kind not in self._stubs:
            start = nginx.start_stub if kind == FAST else behaving.start
            child, self._stubs[kind] = start(self.folder)
            self._stack.callback(child.stop)
        return self._stubs[kind]

    def targets(self, names: Sequence[str], kind: str) -> list[Target]:
        """Those of these names that can be had, before the stub of this kind; told which cannot.

        They are started together at their first use, and run until targets of another kind are wanted.
        """
        if kind != self._kind:
            self._running.close()
            self._running, self._targets, self._kind = contextlib.ExitStack(), {}, kind
        for name in names:
            if name in self._targets or name in self._unavailable:
                continue
            try:
                self._targets[name] = self.target(name, kind)
            except (UnavailableError, DidNotStartError) as error:
                self._said(f"SKIPPED {name}: {error}")
                self._unavailable.add(name)
                continue
            self._running.callback(self._targets[name].stop)
        return [self._targets[name] for name in names if name in self._targets]

    def target(self, name: str, kind: str) -> Target:
        """Starts one; UnavailableError or DidNotStartError say why not. The caller stops it."""
        upstream, folder = self.stub(kind), self.new_folder(name)
        if name == DIRECT:
            return Target(name=DIRECT, base=f"http://127.0.0.1:{upstream}")
        if name == NGINX:
            child, port = nginx.start_proxy(folder, upstream)
            return Target(name=NGINX, base=f"http://127.0.0.1:{port}", pid=child.pid, stop=child.stop)
        if name == GATEWAY:
            return self.gateway(kind)
        return {PORTKEY: peers.portkey, LITELLM: peers.litellm}[name](folder, upstream)

    def gateway(self, kind: str, **settings: str) -> product.Gateway:
        """A gateway with a database of its own; `settings` are environment variables. The caller stops it."""
        return product.start(self.new_folder(GATEWAY), self.urls(), self.stub(kind), settings)

    def urls(self) -> tuple[str, str]:
        """A new migrated database, and Redis."""
        self._numbers += 1
        url = create_database(self._servers.database_url, f"bench_{self._numbers}")
        migrate.upgrade(url)
        return url, self._servers.redis_url

    def new_folder(self, name: str) -> Path:
        self._numbers += 1
        made = self.folder / f"{name}-{self._numbers}"
        made.mkdir()
        return made

    @contextlib.contextmanager
    def measured(self, target: Target) -> Iterator[Spent]:
        """What is used until the block ends; filled in then."""
        spent, began = Spent(), time.perf_counter()
        before = self._read(target)
        yield spent
        spent.seconds = time.perf_counter() - began
        spent.target, spent.postgres, spent.redis, ours, busy = (
            after - earlier for after, earlier in zip(self._read(target), before, strict=True)
        )
        spent.noise = max(0.0, busy - ours) / (spent.seconds * (os.cpu_count() or 1))

    def _read(self, target: Target) -> tuple[float, float, float, float, float]:
        pids = self._servers.pids
        return (
            0.0 if target.pid is None else cpu_seconds([target.pid]),
            cpu_seconds([pids["Postgres"]]),
            cpu_seconds([pids["Valkey"]]),
            cpu_seconds([os.getpid()]),
            busy_seconds(),
        )

    def postgres_version(self) -> str:
        plain = self._servers.database_url.replace("+psycopg", "")
        with psycopg.connect(plain) as connection:
            return str(connection.info.parameter_status("server_version"))

    def close(self) -> None:
        """Stops everything that was started here."""
        with self._stack:
            self._running.close()


@contextlib.contextmanager
def lab(said: Callable[[str], None]) -> Iterator[Lab]:
    """A lab with servers that sync their commits."""
    data = Path(tempfile.mkdtemp(prefix="pxg-bench-"))
    data.chmod(0o711)  # root's servers run as another user, who has to pass through
    servers = EmbeddedServers(data / "servers")
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        (data / "run").mkdir()
        with servers:
            made = Lab(data / "run", servers, said)
            try:
                yield made
            finally:
                made.close()
    finally:
        signal.signal(signal.SIGTERM, before)
        for folder in {data, servers.home}:
            shutil.rmtree(folder, ignore_errors=True)


def _leave(number: int, _: FrameType | None) -> None:
    """Ends the bench as Ctrl-C does, so that everything it started is stopped and its folder goes."""
    raise SystemExit(128 + number)
