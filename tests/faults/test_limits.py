"""The limits while Redis fails: each process counts alone, nobody waits long, and the running calls come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from secrets import token_hex

import pytest

from gateway.cache.client import CacheClient
from gateway.clock import SystemClock
from gateway.limits.limits import Bound, Bounds, Lane, Limits, Refusal, Taken
from gateway.patience import REDIS
from gateway.telemetry import Metrics
from tests.fakes.cache import cache_client
from tests.faults.proxy import FaultProxy, proxied
from tests.faults.valkey import OwnValkey, own_valkey


@pytest.fixture(scope="module")
def valkey() -> Iterator[OwnValkey]:
    with own_valkey() as server:
        yield server


@pytest.fixture
async def proxy(valkey: OwnValkey) -> AsyncIterator[FaultProxy]:
    async with proxied(("127.0.0.1", valkey.port)) as proxy:
        yield proxy


@pytest.fixture
async def direct(valkey: OwnValkey) -> AsyncIterator[CacheClient]:
    """Past the proxy."""
    async with cache_client(valkey.url) as client:
        yield client


@pytest.fixture
def team() -> str:
    return token_hex(8)


def limit(team: str, per_minute: int | None, in_flight: int | None) -> Bounds:
    return Bounds(team, "k1", Bound(None, None), Bound(per_minute, in_flight))


async def leases(direct: CacheClient, team: str) -> int:
    return int(await direct.run("ZCARD", f"pxg:{{{team}}}:in-flight:key:k1"))


@pytest.mark.parametrize("fault", ["slow", "silent", "killed"])
async def test_limits_go_on_in_the_process_and_nobody_waits_long(
    proxy: FaultProxy, team: str, fault: str
) -> None:
    metrics, wanted = Metrics(), limit(team, 12, 3)
    async with cache_client(f"redis://127.0.0.1:{proxy.port}", metrics=metrics) as cache:
        limits = Limits(cache, SystemClock(), metrics)
        before = await limits.take(wanted, Lane.PAID)
        assert isinstance(before, Taken)
        if fault == "killed":
            proxy.kill()
        proxy.delay, proxy.blackhole = 5.0, fault == "silent"
        found, times = [], []
        for _ in range(20):
            started = time.monotonic()
            with REDIS.patience(0.3):
                one = await limits.take(wanted, Lane.PAID)
            times.append(time.monotonic() - started)
            found.append(one)
        assert max(times) < 0.4
        assert max(times[5:]) < 0.1
        # Those that run here count, also the one that began while Redis was there.
        assert [isinstance(one, Taken) for one in found] == [True] * 2 + [False] * 18
        assert {one.by for one in found if isinstance(one, Refusal)} == {"calls_in_flight"}
        for one in (before, *found):
            if isinstance(one, Taken):
                one.release()
        rated = [await limits.take(wanted, Lane.PAID) for _ in range(3)]
        assert all(isinstance(one, Taken) for one in rated)
    counted = metrics.registry.get_sample_value("gateway_limits_local_total", {"lane": "paid"})
    assert counted == 23


async def test_when_redis_is_back_the_running_calls_are_put_into_it_again(
    direct: CacheClient, proxy: FaultProxy, team: str
) -> None:
    wanted = limit(team, None, 2)
    async with cache_client(f"redis://127.0.0.1:{proxy.port}", breaker_seconds=0.1) as cache:
        limits = Limits(cache, SystemClock(), Metrics())
        proxy.kill()
        calls = [await limits.take(wanted, Lane.PAID) for _ in range(2)]
        assert all(isinstance(call, Taken) for call in calls)
        assert await leases(direct, team) == 0
        await proxy.listen()
        async with asyncio.timeout(3):
            while await leases(direct, team) < 2:
                await limits.renew()
                await asyncio.sleep(0.01)
        elsewhere = Limits(direct, SystemClock(), Metrics())
        assert isinstance(await elsewhere.take(wanted, Lane.PAID), Refusal)
        for call in calls:
            assert isinstance(call, Taken)
            call.release()
        async with asyncio.timeout(3):
            while await leases(direct, team):
                await asyncio.sleep(0.005)


async def test_a_call_that_ends_while_a_renewal_teaches_the_scripts_anew_is_not_put_back(
    direct: CacheClient, team: str
) -> None:
    limits = Limits(direct, SystemClock(), Metrics())
    calls = [await limits.take(limit(team, None, 5), Lane.PAID) for _ in range(3)]
    await direct.run("SCRIPT", "FLUSH")
    renewing = asyncio.create_task(limits.renew())
    await asyncio.sleep(0)  # asked for, and refused: the server knows no scripts
    for call in calls[1:]:
        assert isinstance(call, Taken)
        call.release()
    await renewing
    await direct.run("PING")
    assert await leases(direct, team) == 1


async def test_flushed_under_load_a_bound_on_calls_is_never_exceeded_for_long(
    direct: CacheClient, proxy: FaultProxy, team: str
) -> None:
    """What a flush forgets, the next renewal restores; nothing fails meanwhile."""
    wanted = limit(team, 100_000, 10)
    async with cache_client(f"redis://127.0.0.1:{proxy.port}", timeout=2.0) as cache:
        limits, stop = Limits(cache, SystemClock(), Metrics()), time.monotonic() + 0.6

        async def load() -> int:
            done = 0
            while time.monotonic() < stop:
                call = await limits.take(wanted, Lane.PAID)
                await asyncio.sleep(0.002)
                if isinstance(call, Taken):
                    call.release()
                    done += 1
            return done

        async def break_it() -> None:
            while time.monotonic() < stop:
                await direct.run("FLUSHALL")
                await direct.run("SCRIPT", "FLUSH")
                await asyncio.sleep(0.02)
                await limits.renew()

        done, _ = await asyncio.gather(asyncio.gather(*(load() for _ in range(20))), break_it())
        assert sum(done) > 100
        assert limits.running == 0
        async with asyncio.timeout(3):
            while await leases(direct, team):
                await asyncio.sleep(0.005)


async def test_a_replica_that_takes_no_writes_is_as_good_as_gone(team: str) -> None:
    metrics = Metrics()
    with own_valkey() as other:
        async with cache_client(other.url, metrics=metrics) as cache:
            limits, wanted = Limits(cache, SystemClock(), metrics), limit(team, 2, None)
            await cache.run("REPLICAOF", "127.0.0.1", 1)
            found = [await limits.take(wanted, Lane.PAID) for _ in range(5)]
            assert [isinstance(one, Taken) for one in found] == [True, True, False, False, False]
    assert metrics.registry.get_sample_value("gateway_limits_local_total", {"lane": "paid"}) == 5
