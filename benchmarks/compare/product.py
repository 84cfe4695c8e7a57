"""The gateway as a target: one worker by its command line, with keys, limits, quotas, ledger, log and metrics on."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from sqlalchemy import make_url

from benchmarks.compare.children import Child, free_port
from benchmarks.compare.targets import GATEWAY, Target
from gateway.access.key_format import TEAM_KEY, Peppers, make

PLENTY = 1_000_000  # a limit that nothing here reaches but everything counts against
CREDITS = 1_000_000_000
TEAMS = 50
MODULE = ("-m", "gateway")  # its command line


@dataclass(slots=True, kw_only=True)
class Gateway(Target):
    """A served gateway; `tokens` are one key of each of fifty teams, the first of them is `token`."""

    database_url: str
    environment: Mapping[str, str]
    folder: Path
    tokens: list[str] = field(default_factory=list)
    team_ids: list[str] = field(default_factory=list)

    def admin(self) -> httpx.Client:
        """A client of the admin API. The caller closes it."""
        token = self.environment["GATEWAY_ADMIN__BOOTSTRAP_TOKEN"]
        return httpx.Client(
            base_url=self.base, headers={"authorization": f"Bearer {token}"}, timeout=60, trust_env=False
        )

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of our own to its database. The caller closes it."""
        plain = make_url(self.database_url).set(drivername="postgresql")
        return psycopg.connect(plain.render_as_string(hide_password=False), autocommit=True)

    def add_keys(self, count: int) -> list[str]:
        """So many new keys, spread over the fifty teams, written past the API; their texts."""
        peppers = Peppers([self.environment["GATEWAY_SECRETS__KEY_PEPPER"]])
        made = [make(TEAM_KEY) for _ in range(count)]
        columns = "id, team_id, name, digest, pepper, last4, requests_per_minute, max_in_flight, quota_key_id"
        with self.connect() as connection, connection.cursor() as cursor:
            with cursor.copy(f"COPY team_keys ({columns}) FROM STDIN".encode()) as copy:
                for number, key in enumerate(made):
                    team, digest = self.team_ids[number % TEAMS], peppers.sign(key.text)
                    start = (key.public_id, team, f"bench {number}", digest, peppers.names[0], key.text[-4:])
                    copy.write_row((*start, PLENTY, PLENTY, key.public_id))
            cursor.execute("ANALYZE team_keys")
        return [key.text for key in made]


def start(
    folder: Path,
    urls: tuple[str, str],
    upstream: int,
    more: Mapping[str, str] | None = None,
    module: Sequence[str] = MODULE,
) -> Gateway:
    """Serves before the stub on the port `upstream`, with teams and keys; `urls` are a migrated database and Redis."""
    gateway = serve(folder, environment(folder, urls, upstream, more), module)
    try:
        _fill(gateway)
    except BaseException:
        gateway.stop()
        raise
    return gateway


def serve(folder: Path, own: Mapping[str, str], module: Sequence[str] = MODULE) -> Gateway:
    """A process with this environment, as soon as it is ready; its access log is the file of the same name."""
    port = int(own["GATEWAY_SERVER__PORT"])
    child = Child([sys.executable, *module, "serve"], folder / "gateway.log", own)
    base = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(trust_env=False) as client:
            child.wait_until(lambda: _ready(client, base))
    except BaseException:
        child.stop()
        raise
    return Gateway(
        name=GATEWAY,
        base=base,
        pid=child.pid,
        stop=child.stop,
        database_url=own["GATEWAY_DATABASE__URL"],
        environment=own,
        folder=folder,
    )


def environment(
    folder: Path, urls: tuple[str, str], upstream: int, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The settings of one process; those of whoever runs the bench are left out."""
    spool = folder / "spool"
    spool.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return {
        **inherited,
        "GATEWAY_DATABASE__URL": urls[0],
        "GATEWAY_REDIS__URL": urls[1],
        "GATEWAY_UPSTREAM__BASE_URL": f"http://127.0.0.1:{upstream}",
        "GATEWAY_UPSTREAM__READS_PER_SECOND": "1000",  # a thousand tasks are read once before they are polled
        "GATEWAY_SECRETS__MASTER_KEYS": secrets.token_urlsafe(32),
        "GATEWAY_SECRETS__KEY_PEPPER": secrets.token_urlsafe(32),
        "GATEWAY_ADMIN__BOOTSTRAP_TOKEN": secrets.token_urlsafe(32),
        "GATEWAY_SERVER__PORT": str(free_port()),
        "GATEWAY_SERVER__MAX_PAID_IN_FLIGHT": "4000",
        "GATEWAY_SERVER__DRAIN_SECONDS": "3",
        "GATEWAY_SERVER__SPOOL_DIR": str(spool),
        "NO_PROXY": "127.0.0.1",
        **(more or {}),
    }


def _ready(client: httpx.Client, base: str) -> bool:
    try:
        return client.get(f"{base}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _fill(gateway: Gateway) -> None:
    """Fifty teams with limits and a monthly quota, each with a key that has limits and a quota too."""
    limits = {"requests_per_minute": PLENTY, "max_in_flight": PLENTY}
    quota = {"period": "month", "limit": CREDITS}
    with gateway.admin() as admin:

        def call(method: str, path: str, body: object) -> Any:
            answer = admin.request(method, f"/admin/api{path}", json=body)
            if not answer.is_success:
                raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
            return answer.json()

        for number in range(TEAMS):
            team = call("POST", "/teams", {"name": f"Bench {number}", "quota": quota, **limits})
            key = call("POST", f"/teams/{team['slug']}/keys", {"name": "bench", **limits})
            call("PUT", f"/keys/{key['id']}/quotas/month", {"limit": CREDITS})
            gateway.team_ids.append(team["id"])
            gateway.tokens.append(key["secret"])
        call("POST", "/upstream-keys", {"label": "stub", "secret": "sk_bench_1"})
    gateway.token = gateway.tokens[0]
