"""Redis as it fails: killed, refused, slow, silent, cut, a replica, flushed; and back without a restart of ours."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.cache.client import CacheClient, CacheGone, Script
from gateway.patience import REDIS
from gateway.telemetry import Metrics
from tests.fakes.cache import cache_client, failures, is_left_alone
from tests.faults.proxy import FaultProxy, proxied
from tests.faults.valkey import OwnValkey, own_valkey

ECHO = Script("return ARGV[1]")
AT_ONCE = 0.1  # far below any time-out, and enough for a busy machine


@pytest.fixture(scope="module")
def valkey() -> Iterator[OwnValkey]:
    with own_valkey() as server:
        yield server


@pytest.fixture
async def proxy(valkey: OwnValkey) -> AsyncIterator[FaultProxy]:
    async with proxied(("127.0.0.1", valkey.port)) as proxy:
        yield proxy


def address(proxy: FaultProxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}"


async def waited(client: CacheClient, *command: str | int) -> float:
    """Seconds until Redis was given up on."""
    started = time.monotonic()
    with pytest.raises(CacheGone):
        await client.run(*command)
    return time.monotonic() - started


async def answers_again(client: CacheClient, seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                assert await client.run("PING") == b"PONG"
            except CacheGone:
                await asyncio.sleep(0.01)
            else:
                return


async def test_slow_redis_costs_five_callers_their_time_out_and_nobody_after_them(proxy: FaultProxy) -> None:
    metrics = Metrics()
    async with cache_client(address(proxy), metrics=metrics) as client:
        await client.run("PING")
        proxy.delay = 5.0
        times = [await waited(client, "GET", "pxg:a") for _ in range(8)]
        assert all(0.14 < seconds < 0.15 + 2 * AT_ONCE for seconds in times[:5]), times
        assert all(seconds < AT_ONCE for seconds in times[5:]), times
        assert failures(metrics, "timeout") == 5
        assert is_left_alone(metrics)
        assert proxy.accepted <= 5
        async with asyncio.timeout(1):
            while proxy.connections:
                await asyncio.sleep(0.01)


async def test_of_many_at_once_nobody_waits_longer_than_the_time_out(proxy: FaultProxy) -> None:
    async with cache_client(address(proxy)) as client:
        await client.run("PING")
        proxy.delay = 5.0
        times = await asyncio.gather(*(waited(client, "GET", n) for n in range(200)))
        assert max(times) < 0.15 + 3 * AT_ONCE
        assert await waited(client, "PING") < AT_ONCE


@pytest.mark.parametrize("fault", ["slow", "silent", "silent from the start", "killed"])
async def test_a_request_waits_for_redis_0_3_s_in_all(proxy: FaultProxy, fault: str) -> None:
    async with cache_client(address(proxy), breaker_failures=1000) as client:
        if fault != "silent from the start":
            await client.run("PING")
        proxy.delay = 5.0
        proxy.blackhole = "silent" in fault
        if fault == "killed":
            proxy.kill()
        started = time.monotonic()
        with REDIS.patience(0.3):
            for _ in range(10):
                await waited(client, "GET", "pxg:a")
                with pytest.raises(CacheGone):
                    await client.script(ECHO, [], ["x"])
        assert time.monotonic() - started < 0.3 + AT_ONCE


async def test_a_reply_that_comes_late_is_nobody_s(proxy: FaultProxy, valkey: OwnValkey) -> None:
    async with cache_client(address(proxy), breaker_failures=1000) as client:
        proxy.delay = 0.2
        await waited(client, "ECHO", "late")
        proxy.delay = 0.0
        for number in range(50):
            assert await client.run("ECHO", number) == b"%d" % number
            await asyncio.sleep(0.005)
        assert proxy.accepted == 2


async def test_who_asked_later_still_gets_an_answer_of_a_connection_that_is_given_up(
    proxy: FaultProxy,
) -> None:
    async with cache_client(address(proxy), breaker_failures=1000, timeout=0.5) as client:
        await client.run("PING")
        proxy.delay = 0.65
        first = asyncio.create_task(waited(client, "ECHO", "first"))
        await asyncio.sleep(0.3)
        # Its reply comes right behind the first one's, 0.65 s after that was asked for and 0.35 s after this.
        second = asyncio.create_task(client.run("ECHO", "second"))
        await asyncio.sleep(0.01)
        proxy.delay = 0.0
        assert await second == b"second"
        assert 0.49 < await first < 0.65
        assert await client.run("PING") == b"PONG"
        assert proxy.accepted == 2


@pytest.mark.parametrize("password", ["", ":pw@"])
async def test_a_connection_that_is_never_made_is_given_up(proxy: FaultProxy, password: str) -> None:
    metrics = Metrics()
    proxy.blackhole = True
    url = address(proxy).replace("//", f"//{password}")
    async with cache_client(url, metrics=metrics) as client:
        times = [await waited(client, "PING") for _ in range(6)]
        limit = 0.1 if password else 0.15  # a login is a part of connecting
        assert all(limit - 0.01 < seconds < limit + 2 * AT_ONCE for seconds in times[:5]), times
        assert times[5] < AT_ONCE
    assert failures(metrics, "connect" if password else "timeout") == 5


async def test_refused_and_back_without_a_restart(
    proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.cache")
    metrics = Metrics()
    async with cache_client(address(proxy), metrics=metrics, breaker_seconds=0.3) as client:
        assert await client.run("PING") == b"PONG"
        proxy.kill()
        times = [await waited(client, "PING") for _ in range(50)]
        assert max(times) < AT_ONCE
        assert is_left_alone(metrics)
        assert await client.state() == "unreachable"
        await proxy.listen()
        assert await client.state() == "ok"  # it is back, and still left alone
        assert await waited(client, "PING") < AT_ONCE
        await answers_again(client)
        assert not is_left_alone(metrics)
    transitions = [record.message for record in caplog.records]
    assert transitions == ["redis is left alone", "redis answers again"]


async def test_half_open_sends_one_probe_and_everyone_else_goes_on_at_once(proxy: FaultProxy) -> None:
    async with cache_client(
        address(proxy), breaker_seconds=0.2, breaker_failures=1, connect_timeout=1, timeout=0.3
    ) as client:
        proxy.blackhole = True
        await waited(client, "PING")
        await asyncio.sleep(0.2)
        before = proxy.accepted
        times = await asyncio.gather(*(waited(client, "GET", n) for n in range(100)))
        assert max(times) < AT_ONCE
        async with asyncio.timeout(1):
            while proxy.connections == 0:
                await asyncio.sleep(0.005)
        times = await asyncio.gather(*(waited(client, "GET", n) for n in range(100)))
        assert max(times) < AT_ONCE
        assert proxy.accepted == before + 1


async def test_cut_again_and_again_is_a_failure_each_but_no_outage(proxy: FaultProxy) -> None:
    metrics = Metrics()
    async with cache_client(address(proxy), metrics=metrics) as client:
        for _ in range(10):
            assert await client.run("PING") == b"PONG"
            proxy.delay = 0.05
            calls = [asyncio.create_task(waited(client, "PING")) for _ in range(20)]
            await asyncio.sleep(0.01)
            proxy.cut()
            assert max(await asyncio.gather(*calls)) < AT_ONCE + 0.05
            proxy.delay = 0.0
    assert failures(metrics, "lost") == 10
    assert not is_left_alone(metrics)


async def test_an_idle_connection_that_is_closed_is_no_failure(proxy: FaultProxy) -> None:
    metrics = Metrics()
    async with cache_client(address(proxy), metrics=metrics) as client:
        for _ in range(10):
            assert await client.run("PING") == b"PONG"
            proxy.cut()
            await asyncio.sleep(0.01)
    assert [failures(metrics, kind) for kind in ("lost", "connect", "timeout")] == [0, 0, 0]


async def test_a_loop_that_stood_still_is_not_taken_for_a_slow_redis(proxy: FaultProxy) -> None:
    metrics = Metrics()
    async with cache_client(address(proxy), metrics=metrics) as client:
        await client.run("PING")
        call = asyncio.create_task(client.run("PING"))
        for _ in range(3):  # it is written, and the proxy, which stands still too, has not passed it on
            await asyncio.sleep(0)
        time.sleep(0.3)
        assert await call == b"PONG"
    assert failures(metrics, "timeout") == 0


async def test_ten_thousand_cancelled_callers_among_live_ones(proxy: FaultProxy) -> None:
    """The reply of a caller that left must never become another caller's."""
    async with cache_client(address(proxy)) as client:
        for start in range(0, 1000, 100):
            await asyncio.gather(*(client.run("SET", f"pxg:{n}", n) for n in range(start, start + 100)))
        served = cancelled = 0

        async def live(number: int) -> None:
            nonlocal served
            assert await client.run("GET", f"pxg:{number}") == b"%d" % number
            served += 1

        for round_ in range(100):
            calls = [asyncio.create_task(live((round_ * 37 + n) % 1000)) for n in range(120)]
            doomed = calls[10:110]
            for _ in range(round_ % 4):  # before the write, after it, while the reply is on its way
                await asyncio.sleep(0)
            cancelled += sum(call.cancel() for call in doomed)
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [one for one in results if isinstance(one, Exception)] == []
        assert cancelled == 10_000
        assert served >= 2_000
        assert proxy.accepted == 1


async def test_cancelled_callers_while_connections_break_and_answers_are_late(proxy: FaultProxy) -> None:
    async with cache_client(address(proxy), breaker_failures=100_000, timeout=0.05) as client:
        await asyncio.gather(*(client.run("SET", f"pxg:{n}", n) for n in range(50)))
        served = gone = 0

        async def live(number: int) -> None:
            nonlocal served, gone
            try:
                assert await client.run("GET", f"pxg:{number}") == b"%d" % number
                served += 1
            except CacheGone:
                gone += 1

        for round_ in range(60):
            proxy.delay = (0.0, 0.03, 0.06)[round_ % 3]
            calls = [asyncio.create_task(live((round_ + n) % 50)) for n in range(40)]
            await asyncio.sleep(0.004 * (round_ % 5))
            for call in calls[::3]:
                call.cancel()
            if round_ % 10 == 9:
                proxy.cut()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [one for one in results if isinstance(one, Exception)] == []
        assert served > 500
        assert gone > 100


async def test_a_server_that_became_a_replica(proxy: FaultProxy, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    with own_valkey() as other:
        async with (
            proxied(("127.0.0.1", other.port)) as before,
            cache_client(address(before), metrics=metrics, breaker_failures=1) as client,
        ):
            await client.run("SET", "pxg:a", 1)
            await client.run("REPLICAOF", "127.0.0.1", 1)
            for _ in range(30):
                with pytest.raises(CacheGone, match="READONLY"):
                    await client.run("SET", "pxg:a", 2)
                assert await client.run("GET", "pxg:a") == b"1"
            assert not is_left_alone(metrics)
            assert failures(metrics, "refused") == 30
            assert before.accepted == 2  # another connection was tried once, not each time
            await client.run("REPLICAOF", "NO", "ONE")
            assert await client.run("SET", "pxg:a", 2) == b"OK"
    assert [record.message for record in caplog.records] == ["redis refuses commands"]


async def test_a_script_on_a_replica(caplog: pytest.LogCaptureFixture) -> None:
    put = Script("return redis.call('SET', KEYS[1], ARGV[1])")
    with own_valkey() as other:
        async with cache_client(other.url, breaker_failures=1) as client:
            await client.script(put, ["pxg:a"], [1])
            await client.run("REPLICAOF", "127.0.0.1", 1)
            with pytest.raises(CacheGone, match="READONLY"):
                await client.script(put, ["pxg:a"], [2])


async def test_full_memory_refuses_without_being_an_outage() -> None:
    with own_valkey("--maxmemory", "2mb", "--maxmemory-policy", "noeviction") as small:
        metrics = Metrics()
        async with cache_client(small.url, metrics=metrics, breaker_failures=1) as client:
            stored = [client.run("SET", f"pxg:{number}", "x" * 100_000) for number in range(60)]
            refused = [one for one in await asyncio.gather(*stored, return_exceptions=True) if one != b"OK"]
            assert refused
            assert all(isinstance(one, CacheGone) and "OOM" in str(one) for one in refused)
            assert await client.run("PING") == b"PONG"
        assert not is_left_alone(metrics)


async def test_flushed_under_load_scripts_go_on(proxy: FaultProxy, valkey: OwnValkey) -> None:
    async with (
        cache_client(address(proxy), timeout=2.0) as client,
        cache_client(valkey.url, timeout=2.0) as admin,
    ):
        stop = time.monotonic() + 0.5

        async def load(number: int) -> int:
            done = 0
            while time.monotonic() < stop:
                assert await client.script(ECHO, ["pxg:k"], [f"{number}.{done}"]) == b"%d.%d" % (number, done)
                done += 1
            return done

        async def flush() -> None:
            while time.monotonic() < stop:
                await admin.run("FLUSHALL")
                await admin.run("SCRIPT", "FLUSH")
                await asyncio.sleep(0.01)

        counts, _ = await asyncio.gather(asyncio.gather(*(load(n) for n in range(20))), flush())
        assert min(counts) > 5


async def test_a_script_the_server_has_lost_is_sent_to_it_once_for_all(valkey: OwnValkey) -> None:
    async def calls(command: str) -> int:
        stats = await client.run("INFO", "commandstats")
        line = next((one for one in stats.split(b"\r\n") if one.startswith(command.encode() + b":")), None)
        return int(line.split(b"calls=")[1].split(b",")[0]) if line else 0

    async with cache_client(valkey.url) as client:
        await client.run("SCRIPT", "FLUSH")
        before = [await calls("cmdstat_eval"), await calls("cmdstat_script|load")]
        found = await asyncio.gather(*(client.script(ECHO, [], [n]) for n in range(200)))
        assert found == [b"%d" % n for n in range(200)]
        assert [await calls("cmdstat_eval"), await calls("cmdstat_script|load")] == [before[0], before[1] + 1]


async def test_killed_and_started_again_without_a_restart_of_ours() -> None:
    with own_valkey() as server:
        async with cache_client(server.url, breaker_seconds=0.2) as client:
            assert await client.run("SET", "pxg:a", 1) == b"OK"
            server.kill()
            times = [await waited(client, "PING") for _ in range(20)]
            assert max(times) < AT_ONCE
            server.start()
            await answers_again(client)
            assert await client.run("GET", "pxg:a") is None


async def test_what_nobody_awaits_is_lost_without_a_word(
    proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.kill()
    async with cache_client(address(proxy)) as client:
        for _ in range(20):
            client.run_soon("SET", "pxg:a", 1)
            client.script_soon(ECHO, [], ["x"])
            await asyncio.sleep(0.001)
    assert [record.message for record in caplog.records] == ["redis is left alone"]
