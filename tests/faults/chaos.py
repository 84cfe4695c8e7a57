"""A seeded chaos run: two gateways, with all they need behind fault proxies, and clients that retry, poll and leave.

A seed decides what each client asks for and which faults come in which order; the machine decides how they meet. What
was answered is kept, for `test_chaos` to hold it against the ledger, the sandbox's journal and the contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import httpx
import redis
from sqlalchemy import make_url
from sqlalchemy.engine import URL

from tests.e2e import harness
from tests.e2e.data_plane.rig import ASYNC, SYNC, Sandbox, caller, new_secret, order
from tests.e2e.harness import Gateway, Process
from tests.faults.proxy import ProxyThread, Target, proxy_thread
from tests.faults.valkey import OwnValkey, own_valkey

STARTS = 4  # of a process whose Postgres is killed now and then

CLIENTS = 12
MOST_RETRIES = 3
ACCOUNT = "chaos"
SETTINGS = {
    "GATEWAY_UPSTREAM__SYNC_TIMEOUT": "2",
    "GATEWAY_UPSTREAM__SUBMIT_TIMEOUT": "2",
    "GATEWAY_UPSTREAM__READ_TIMEOUT": "1",
    "GATEWAY_UPSTREAM__READS_PER_SECOND": "50",
    "GATEWAY_CACHE__TASK_UNFINISHED": "0.3",
    "GATEWAY_REDIS__BREAKER_SECONDS": "1",
}
PLAIN = ("", "", "", "", "[fault:delay=0.3]", "[fault:delay=0.1 drip=0.2]")
MARKED = (
    "[fault:reset_after_execute]",
    "[fault:hang_after_execute=3]",
    "[fault:half_body]",
    "[fault:cut]",
    "[fault:executes_then_500=502]",
    "[fault:delay=0.2 status=500]",
    "[fault:status=503 shape=none]",
    "[fault:status=400 shape=string]",
    "[fault:poll_status=503:2]",
    "[fault:duplicate_terminal]",
)


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing a client wants once, whatever it takes; its prompt is nobody else's."""

    client: int
    path: str
    prompt: str
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class Sent:
    """One attempt at an intent, and the process it was sent to."""

    intent: Intent
    request_id: str
    process: int  # its pid
    at: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Seen:
    """A poll's answer: whose client asked, and for which task."""

    client: int
    task: str
    owner: int  # the team it belongs to
    answer: httpx.Response


@dataclass
class Record:
    """Everything clients sent and got."""

    sent: list[Sent] = field(default_factory=list)
    paid: list[tuple[Intent, httpx.Response]] = field(default_factory=list)
    polls: list[Seen] = field(default_factory=list)
    tasks: dict[str, int] = field(default_factory=dict)  # id -> team
    faults: int = 0
    logs: list[str] = field(default_factory=list)  # of processes that were killed
    killed: dict[int, float] = field(default_factory=dict)  # pid -> when


@dataclass
class Chaos:
    """The arrangement: `slots` are the two processes, the first of which survives."""

    seed: int
    gateway: Gateway
    slots: list[Process]
    keys: list[str]  # of each team
    teams: list[str]  # their ids
    secrets: list[str]
    sandbox: Sandbox
    valkey: OwnValkey
    before: dict[str, ProxyThread]  # redis, pixapi, postgres
    second: ExitStack
    record: Record = field(default_factory=Record)

    async def run(self, seconds: float) -> None:
        """Traffic and faults for so long; the faults have ended then, their traces have not."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as everything:
            everything.create_task(self._faults(until))
            everything.create_task(self._kills(until))
            for number in range(CLIENTS):
                everything.create_task(_Client(self, number).run(until))

    async def _faults(self, until: float) -> None:
        random = Random(f"{self.seed} faults")
        kinds: list[Callable[[Random], Awaitable[None]]] = [
            self._flush_redis, self._kill_redis, self._slow_redis, self._silent_redis, self._no_pixapi,
            *(partial(self._cut, name) for name in self.before),
        ]  # fmt: skip
        while time.monotonic() < until:
            random.shuffle(kinds)  # every kind once before any comes again
            for kind in kinds:
                await asyncio.sleep(random.uniform(0.1, 0.6))
                if time.monotonic() >= until:
                    break
                await kind(random)
                self.record.faults += 1

    async def _flush_redis(self, random: Random) -> None:
        with suppress(redis.RedisError), closing(redis.Redis.from_url(self.valkey.url)) as connection:
            await asyncio.to_thread(connection.flushall)

    async def _kill_redis(self, random: Random) -> None:
        await asyncio.to_thread(self.valkey.kill)
        await asyncio.sleep(random.uniform(0, 0.4))
        await asyncio.to_thread(self.valkey.start)

    async def _slow_redis(self, random: Random) -> None:
        self.before["redis"].delay(random.uniform(0.05, 0.5))
        await asyncio.sleep(random.uniform(0.2, 0.8))
        self.before["redis"].delay(0)

    async def _silent_redis(self, random: Random) -> None:
        self.before["redis"].proxy.blackhole = True
        await asyncio.sleep(random.uniform(0.1, 0.6))
        self.before["redis"].proxy.blackhole = False

    async def _no_pixapi(self, random: Random) -> None:
        await asyncio.to_thread(self.before["pixapi"].kill)
        await asyncio.sleep(random.uniform(0, 0.4))
        await asyncio.to_thread(self.before["pixapi"].listen)

    async def _cut(self, name: str, random: Random) -> None:
        """Every connection to it is reset."""
        await asyncio.to_thread(self.before[name].cut)

    async def _kills(self, until: float) -> None:
        random = Random(f"{self.seed} kills")
        while time.monotonic() < until:
            await asyncio.sleep(random.uniform(1, 4))
            await self._kill_gateway()

    async def _kill_gateway(self) -> None:
        """kill -9, and its equal is started on another port."""
        process = self.slots[1]
        process.child.kill()
        await asyncio.to_thread(process.child.wait)
        self.record.killed[process.child.pid] = time.monotonic()
        self.record.logs.append(process.text())
        await asyncio.to_thread(self.second.close)
        self.slots[1] = await asyncio.to_thread(self._started_again)

    def _started_again(self) -> Process:
        """Started until it runs, as a supervisor does: Postgres may be gone at the very moment it looks."""
        for _ in range(STARTS - 1):
            with contextlib.suppress(AssertionError):
                return self.second.enter_context(harness.beside(self.gateway.environment))
        return self.second.enter_context(harness.beside(self.gateway.environment))


class _Client:
    """Asks for pictures, repeats what got no answer like an SDK, polls its team's tasks, and leaves now and then."""

    def __init__(self, chaos: Chaos, number: int) -> None:
        self._chaos = chaos
        self._number = number
        self._team = number % len(chaos.keys)
        self._random = Random(f"{chaos.seed} client {number}")
        self._tasks: list[str] = []

    async def run(self, until: float) -> None:
        headers = {"authorization": f"Bearer {self._chaos.keys[self._team]}"}
        async with httpx.AsyncClient(headers=headers, trust_env=False, verify=False) as http:
            for number in itertools.count(1):
                if time.monotonic() >= until:
                    return
                if self._tasks and self._random.random() < 0.5:
                    await self._poll(http)
                else:
                    await self._want(http, self._intent(number))
                await asyncio.sleep(self._random.uniform(0, 0.1))

    def _intent(self, number: int) -> Intent:
        marker = self._random.choice(MARKED if self._random.random() < 0.35 else PLAIN)
        return Intent(
            client=self._number,
            path=self._random.choice((SYNC, ASYNC)),
            prompt=f"Cup {self._number}-{number} of {self._chaos.seed} {marker}",
            idempotency_key=f"{self._number}-{number}" if self._random.random() < 0.4 else None,
        )

    async def _want(self, http: httpx.AsyncClient, intent: Intent) -> None:
        """The call with its repeats; some clients lose patience early, and some only once."""
        patience = self._random.choice((4.0, 4.0, 0.4, 0.15))
        stubborn = self._random.random() < 0.2  # repeats what it was told not to
        for attempt in range(MOST_RETRIES + 1):
            answer = await self._attempt(http, intent, attempt, patience)
            if answer is None:
                if self._random.random() < 0.2:
                    return
                continue
            self._chaos.record.paid.append((intent, answer))
            if answer.is_success:
                if intent.path == ASYNC:
                    self._tasks.append(str(answer.json()["id"]))
                    self._chaos.record.tasks[self._tasks[-1]] = self._team
                return
            told = answer.headers.get("x-should-retry") == "true"
            if not told and not (stubborn and answer.status_code >= 500):
                return
            await asyncio.sleep(self._random.uniform(0.05, 0.2))

    async def _attempt(
        self, http: httpx.AsyncClient, intent: Intent, attempt: int, patience: float
    ) -> httpx.Response | None:
        """None when it gave up waiting, or the connection ended."""
        process = self._random.choice(self._chaos.slots)
        ident = f"chaos-{self._chaos.seed}-{self._number}-{len(self._chaos.record.sent)}"
        headers = {"x-request-id": ident, "x-stainless-retry-count": str(attempt)}
        if intent.idempotency_key is not None:
            headers["idempotency-key"] = intent.idempotency_key
        self._chaos.record.sent.append(Sent(intent, ident, process.child.pid, time.time()))
        with suppress(httpx.TransportError):
            return await http.post(
                f"{process.base}{intent.path}", json=order(intent.prompt), headers=headers, timeout=patience
            )
        return None

    async def _poll(self, http: httpx.AsyncClient) -> None:
        task, owner = self._random.choice(self._tasks[-5:]), self._team
        strangers = [one for one, team in self._chaos.record.tasks.items() if team != self._team]
        if strangers and self._random.random() < 0.15:
            task, owner = self._random.choice(strangers), 1 - self._team
        headers = self._random.choice(({}, {}, {"prefer": "wait=1"}, {"cache-control": "no-cache"}))
        base = self._random.choice(self._chaos.slots).base
        with suppress(httpx.TransportError):
            answer = await http.get(f"{base}/v1/tasks/{task}", headers=headers, timeout=4.0)
            self._chaos.record.polls.append(Seen(self._number, task, owner, answer))


@contextmanager
def chaos(seed: int, database_url: str) -> Iterator[Chaos]:
    """Two gateways on this migrated database, with three Pixapi keys and two teams; the second one's quota is small."""
    with ExitStack() as stack:
        valkey = stack.enter_context(own_valkey())
        pixapi = stack.enter_context(harness.sandbox())
        url, server = _behind(database_url)
        before = {
            "redis": stack.enter_context(proxy_thread(("127.0.0.1", valkey.port))),
            "pixapi": stack.enter_context(proxy_thread(("127.0.0.1", pixapi.port))),
            "postgres": stack.enter_context(proxy_thread(server)),
        }
        address = {name: f"127.0.0.1:{proxy.port}" for name, proxy in before.items()}
        database = url.set(port=before["postgres"].port).render_as_string(hide_password=False)
        gateway = stack.enter_context(
            harness.gateway(database, f"redis://{address['redis']}", f"http://{address['pixapi']}", SETTINGS)
        )
        second = stack.enter_context(ExitStack())
        other = second.enter_context(harness.beside(gateway.environment))
        control = stack.enter_context(caller(pixapi.base))
        teams = [_team(gateway, name, limit) for name, limit in (("Alpha", 100_000), ("Beta", 120))]
        secrets = [new_secret(ACCOUNT) for _ in range(3)]
        for secret in secrets:
            gateway.upstream_key(secret, account=ACCOUNT)
        yield Chaos(
            seed=seed, gateway=gateway, slots=[gateway.process, other], secrets=secrets, valkey=valkey,
            keys=[gateway.key(team["slug"]) for team in teams], teams=[team["id"] for team in teams],
            sandbox=Sandbox(pixapi, control), before=before, second=second,
        )  # fmt: skip


def _team(gateway: Gateway, name: str, limit: int) -> dict[str, Any]:
    return gateway.team(name, requests_per_minute=100_000, quota={"period": "month", "limit": limit})


def _behind(database_url: str) -> tuple[URL, Target]:
    """The URL by TCP (its port is still to be set), and where the server listens."""
    url = make_url(database_url)
    host, port = str(url.query.get("host") or url.host), str(url.query.get("port") or url.port or 5432)
    target: Target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port))
    return url.set(host="127.0.0.1", query={}), target
