"""The served product over real sockets: gateway processes and a sandbox, started and stopped by pid."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.forked import Forked

START_SECONDS = 30.0
STOP_SECONDS = 15.0


@dataclass
class Process:
    """A child process that printed its address."""

    base: str
    child: Forked
    log: Path

    @property
    def port(self) -> int:
        return int(self.base.rsplit(":", 1)[1])

    def text(self) -> str:
        """Everything it has printed so far."""
        return self.log.read_text("utf-8", "replace")

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Ends it and returns its exit code; what does not end in time is killed."""
        if self.child.poll() is None:
            self.child.send_signal(with_signal)
        try:
            return self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise AssertionError(f"did not end within {STOP_SECONDS} s:\n{self.text()[-2000:]}") from None


@contextlib.contextmanager
def running(
    arguments: list[str], address: re.Pattern[str], environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Runs `python -m …` until the block ends; `address` finds its base URL in what it prints."""
    with tempfile.TemporaryDirectory(prefix="pxg-e2e-") as folder:
        log = Path(folder) / "output.log"
        log.touch()
        child = Forked(arguments[0], arguments[1:], {**os.environ, **(environment or {})}, log)
        process = Process("", child, log)
        try:
            process.base = _address(process, address)
            yield process
        finally:
            process.stop()


def _address(process: Process, address: re.Pattern[str]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if found := address.search(process.text()):
            return found[1]
        if process.child.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"did not start:\n{process.text()[-4000:]}")


@contextlib.contextmanager
def sandbox(*flags: str) -> Iterator[Process]:
    """A simulated Pixapi, twenty times as fast as the real one unless told otherwise."""
    speed = [] if "--speed" in flags else ["--speed", "20"]
    with running(
        ["gateway.sandbox", "--port", "0", *speed, *flags], re.compile(r"ready on (http://\S+)")
    ) as process:
        yield process


@dataclass
class Gateway:
    """A served gateway with its admin token; `environment` starts a second process that is its equal."""

    process: Process
    environment: dict[str, str]
    admin: httpx.Client = field(repr=False)

    @property
    def base(self) -> str:
        return self.process.base

    def call(self, method: str, path: str, **options: Any) -> Any:
        """An admin API call that must succeed; its answer."""
        answer = self.admin.request(method, f"/admin/api{path}", **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def team(self, name: str = "Alpha", **fields: Any) -> dict[str, Any]:
        fields = fields or {"unlimited": True}
        made: dict[str, Any] = self.call("POST", "/teams", json={"name": name, **fields})
        return made

    def key(self, team: str, **fields: Any) -> str:
        """A new key of the team: its whole text."""
        made = self.call("POST", f"/teams/{team}/keys", json={"name": "test", **fields})
        return str(made["secret"])

    def upstream_key(self, secret: str, label: str | None = None, **fields: Any) -> dict[str, Any]:
        label = label or f"key-{secrets.token_hex(4)}"
        made: dict[str, Any] = self.call(
            "POST", "/upstream-keys", json={"label": label, "secret": secret, **fields}
        )
        return made

    def client(self, key: str) -> httpx.Client:
        """An HTTP client of one team key. The caller closes it."""
        return httpx.Client(
            base_url=self.base, headers={"authorization": f"Bearer {key}"}, timeout=60, trust_env=False
        )


@contextlib.contextmanager
def gateway(
    database_url: str, redis_url: str, upstream: str, environment: Mapping[str, str] | None = None
) -> Iterator[Gateway]:
    """One gateway process in front of `upstream`, on a migrated database, with a spool folder for it and its equals."""
    token = secrets.token_urlsafe(32)
    own = {
        "GATEWAY_DATABASE__URL": database_url,
        "GATEWAY_REDIS__URL": redis_url,
        "GATEWAY_UPSTREAM__BASE_URL": upstream,
        "GATEWAY_SECRETS__MASTER_KEYS": secrets.token_urlsafe(32),
        "GATEWAY_SECRETS__KEY_PEPPER": secrets.token_urlsafe(32),
        "GATEWAY_ADMIN__BOOTSTRAP_TOKEN": token,
        "GATEWAY_SERVER__PORT": "0",
        "GATEWAY_SERVER__DRAIN_SECONDS": "5",
        "NO_PROXY": "127.0.0.1",
        **(environment or {}),
    }
    with contextlib.ExitStack() as stack:
        if "GATEWAY_SERVER__SPOOL_DIR" not in own:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="pxg-spool-", ignore_cleanup_errors=True)
            )
            own["GATEWAY_SERVER__SPOOL_DIR"] = folder
        process = stack.enter_context(beside(own))
        client = httpx.Client(
            base_url=process.base,
            headers={"authorization": f"Bearer {own['GATEWAY_ADMIN__BOOTSTRAP_TOKEN']}"},
            timeout=30,
            trust_env=False,
        )
        stack.enter_context(client)
        yield Gateway(process, own, client)


@contextlib.contextmanager
def beside(environment: Mapping[str, str]) -> Iterator[Process]:
    """One more gateway process with the same settings."""
    with running(["gateway", "serve"], re.compile(r"(http://127\.0\.0\.1:\d+) for "), environment) as process:
        yield process


def eventually(check: Any, seconds: float = 10.0, every: float = 0.02) -> Any:
    """The first true value of `check()`; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        if found := check():
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(every)
