"""Changes reach other processes by way of a real Redis, and commands tell them, whatever state Redis is in."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.access import revocation, team_keys, teams
from gateway.access.authenticator import Authenticator
from gateway.access.key_format import Peppers
from gateway.access.principal import Principal
from gateway.cache.client import CacheClient
from gateway.cache.events import Events
from gateway.cli.announcing import SECONDS, Announcer
from gateway.cli.local_api import Call, LocalApi
from gateway.clock import SystemClock
from gateway.db.engine import Database
from gateway.errors import GatewayError
from gateway.settings import Settings, load
from gateway.telemetry import Metrics
from tests.fakes.flaky_database import FlakyDatabase
from tests.fakes.stored import ACTOR, Caller, caller

PEPPER = "pepper-of-the-integration-tests-0123456789"
CONFIG = Path(__file__).resolve().parents[2] / "config"
WITHIN = 1.0  # by contract


class Process:
    """What a gateway process keeps of keys, and how it hears of changes. Principals live a minute."""

    def __init__(self, database: Database, redis_url: str) -> None:
        clock, self.metrics = SystemClock(), Metrics()
        self.client = CacheClient(
            redis_url,
            connect_timeout=5,
            timeout=5,
            breaker_failures=5,
            breaker_seconds=1,
            clock=clock,
            metrics=self.metrics,
        )
        self.events = Events(redis_url, self.client, clock, connect_timeout=5)
        self.authenticator = Authenticator(database, Peppers([PEPPER]), clock, ttl=60)
        revocation.follow(self.events, self.authenticator, clock, self.metrics)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Process]:
        hearing = asyncio.create_task(self.events.run())
        try:
            await eventually(lambda: self.events.connected, 5)
            yield self
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])
            await self.authenticator.noted()
            await self.client.close()

    async def who(self, team: Caller) -> Principal:
        return await self.authenticator.authenticate([f"Bearer {team.secret}".encode()])

    async def refuses(self, team: Caller) -> bool:
        try:
            await self.who(team)
        except GatewayError as error:
            if error.status != 401:
                raise
            return True
        return False

    def lag(self, what: str) -> float:
        return self.metrics.registry.get_sample_value(f"gateway_revocation_lag_seconds_{what}") or 0.0


async def eventually(check: Callable[[], bool | Awaitable[bool]], seconds: float) -> None:
    """Until `check()` is true; fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)


@pytest.fixture
async def process(database: FlakyDatabase, redis_url: str) -> AsyncIterator[Process]:
    async with Process(database, redis_url).running() as process:
        yield process


@pytest.fixture
async def other(database: FlakyDatabase, redis_url: str) -> AsyncIterator[Process]:
    async with Process(database, redis_url).running() as process:
        yield process


async def revoked(database: Database, team: Caller) -> None:
    async with database.transaction() as connection:
        await team_keys.revoke(connection, ACTOR, team.key_id, datetime.now(UTC))


async def test_a_key_revoked_in_one_process_is_dead_in_another(
    process: Process, other: Process, database: FlakyDatabase
) -> None:
    team, bystander = await caller(database), await caller(database)
    for key in (team, bystander):
        assert not await other.refuses(key)
    await revoked(database, team)
    assert not await other.refuses(team)
    process.events.publish("key", team.key_id)
    await eventually(lambda: other.refuses(team), WITHIN)
    await eventually(lambda: process.lag("count") == 1, WITHIN)
    for each in (process, other):
        assert each.lag("count") == 1
        assert 0 <= each.lag("sum") < WITHIN
    asked = database.asked
    assert not await other.refuses(bystander)
    assert database.asked == asked


async def test_a_team_suspended_in_one_process_is_suspended_in_another(
    process: Process, other: Process, database: FlakyDatabase
) -> None:
    team = await caller(database)
    assert not (await other.who(team)).team_suspended
    async with database.transaction() as connection:
        await teams.suspend(connection, ACTOR, str(team.team_id))
    process.events.publish("team", str(team.team_id))

    async def suspended() -> bool:
        return (await other.who(team)).team_suspended

    await eventually(suspended, WITHIN)


async def test_what_is_said_while_a_subscription_is_lost_is_not_missed(
    process: Process, database: FlakyDatabase
) -> None:
    team = await caller(database)
    assert not await process.refuses(team)
    await revoked(database, team)
    assert await process.client.run("CLIENT", "KILL", "TYPE", "pubsub") >= 1
    await eventually(lambda: process.refuses(team), WITHIN)
    await eventually(lambda: process.events.connected, 5)
    assert process.lag("count") == 0
    later = await caller(database)
    assert not await process.refuses(later)
    await revoked(database, later)
    assert await process.events.publish_now("key", later.key_id)
    await eventually(lambda: process.refuses(later), WITHIN)


# Commands --------------------------------------------------------------------------------------------------------


def environment(database_url: str, redis_url: str) -> dict[str, str]:
    return {
        "GATEWAY_DATABASE__URL": database_url,
        "GATEWAY_REDIS__URL": redis_url,
        "GATEWAY_SECRETS__MASTER_KEYS": "kqWm3vT9-pZ0hXb7sLd2cYf6rNj4gAe8",
        "GATEWAY_SECRETS__KEY_PEPPER": PEPPER,
    }


def settings(database_url: str, redis_url: str, **redis: str) -> Settings:
    own = environment(database_url, redis_url)
    return load(CONFIG, own | {f"GATEWAY_REDIS__{name.upper()}": value for name, value in redis.items()})


class Answering(asyncio.Protocol):
    """One connection to a Redis that gives the same reply to everything."""

    def __init__(self, reply: bytes, transports: list[asyncio.Transport]) -> None:
        self._reply = reply
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transports.append(transport)

    def data_received(self, data: bytes) -> None:
        self._transports[-1].write(self._reply)


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[str]:
    """The URL of a Redis that gives this reply to everything; none at all if it is empty."""
    transports: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(reply, transports), "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        for transport in transports:
            transport.abort()


async def test_a_command_is_heard_of(
    process: Process, database: FlakyDatabase, module_database_url: str, redis_url: str
) -> None:
    team, heard = await caller(database), list[str]()
    process.events.listen("upstream-key", lambda event: heard.append(event.ident))
    assert not await process.refuses(team)
    async with LocalApi(settings(module_database_url, redis_url), "cli:test") as api:
        await api.call(Call("POST", "/keys/{id}/revoke", {"id": team.key_id}))
        await eventually(lambda: process.refuses(team), WITHIN)
        drained = await api.call(Call("POST", "/upstream-keys/{id}/drain", {"id": str(team.upstream_key_id)}))
        await eventually(lambda: heard == [str(drained.id)], WITHIN)


@pytest.mark.parametrize("reply", [b"", b"-NOPERM no permissions\r\n", b"-READONLY replica\r\n", b"*"])
async def test_a_command_s_announcement_takes_its_time_at_most(
    module_database_url: str, reply: bytes
) -> None:
    async with answering(reply) as redis_url:
        patient = settings(module_database_url, redis_url, connect_timeout="10", timeout="10")
        announcer = Announcer(patient, SystemClock())
        began = time.monotonic()
        await announcer.announce("key", "0123456789")
        assert time.monotonic() - began < SECONDS + 0.1


@pytest.mark.parametrize("reply", [b"-NOPERM no permissions\r\n", b"", None])
@pytest.mark.long
async def test_a_command_does_its_work_in_silence_whatever_redis_says(
    database: FlakyDatabase, module_database_url: str, reply: bytes | None
) -> None:
    team = await caller(database)
    async with answering(reply or b"") as redis_url:
        own = environment(module_database_url, "redis://127.0.0.1:1/0" if reply is None else redis_url)
        own["GATEWAY_REDIS__BREAKER_FAILURES"] = "1"
        command = [sys.executable, "-m", "gateway", "keys", "revoke", team.key_id, "--yes", "--json"]
        child = await asyncio.create_subprocess_exec(
            *command, env=own, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, complaints = await asyncio.wait_for(child.communicate(), 60)
    assert (child.returncode, complaints) == (0, b"")
    assert b'"state":"revoked"' in output
