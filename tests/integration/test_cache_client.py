"""The cache client on a real server: replies, scripts, one connection, and what nobody awaits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from secrets import token_hex

import pytest

from gateway.cache.client import CacheClient, CacheGone, Script
from gateway.patience import REDIS
from gateway.telemetry import Metrics
from tests.fakes.cache import cache_client, failures

PUT = Script("redis.call('SET', KEYS[1], ARGV[1]) return {ARGV[1], #ARGV}")


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[CacheClient]:
    async with cache_client(redis_url, timeout=2.0) as client:  # a busy machine is no matter here
        yield client


@pytest.fixture
def key() -> str:
    """A key of this test alone, whoever else uses the server."""
    return f"pxg:test:{token_hex(8)}"


async def eventually(client: CacheClient, key: str, value: bytes) -> None:
    async with asyncio.timeout(2):
        while await client.run("GET", key) != value:
            await asyncio.sleep(0.001)


async def test_replies_are_bytes_numbers_lists_and_none(client: CacheClient, key: str) -> None:
    assert await client.run("SET", key, b"\xff\x00") == b"OK"
    assert await client.run("GET", key) == b"\xff\x00"
    assert await client.run("INCRBY", f"{key}:n", 7) == 7
    assert await client.run("MGET", key, f"{key}:none") == [b"\xff\x00", None]
    assert await client.run("GET", f"{key}:none") is None


async def test_a_thousand_callers_of_one_turn_share_one_connection_and_get_their_own(
    client: CacheClient, key: str
) -> None:
    await asyncio.gather(*(client.run("SET", f"{key}:{n}", n, "EX", 60) for n in range(1000)))
    values = await asyncio.gather(*(client.run("GET", f"{key}:{n}") for n in range(1000)))
    assert values == [b"%d" % n for n in range(1000)]
    ids = await asyncio.gather(*(client.run("CLIENT", "ID") for _ in range(100)))
    assert len(set(ids)) == 1


async def test_a_script_that_the_server_does_not_know_is_sent_to_it(client: CacheClient, key: str) -> None:
    script = Script(f"{PUT.text} -- {key}")
    assert await client.run("SCRIPT", "EXISTS", script.sha) == [0]
    assert await client.script(script, [key], ["x", 2]) == [b"x", 2]
    assert await client.run("SCRIPT", "EXISTS", script.sha) == [1]
    assert await client.script(script, [key], ["y"]) == [b"y", 1]
    assert await client.run("GET", key) == b"y"


async def test_an_error_reply_is_gone_but_no_failure_of_redis(redis_url: str, key: str) -> None:
    metrics = Metrics()
    async with cache_client(redis_url, metrics=metrics, breaker_failures=1) as client:
        await client.run("SET", key, "text")
        with pytest.raises(CacheGone, match="not an integer"):
            await client.run("INCR", key)
        with pytest.raises(CacheGone, match="ERR"):
            await client.script(Script("return redis.call('NOSUCH')"), [], [])
        assert await client.run("GET", key) == b"text"
    assert failures(metrics, "refused") == 2


async def test_commands_asked_together_are_done_or_one_of_them_was_refused(
    client: CacheClient, key: str
) -> None:
    await client.run_all([("SET", f"{key}:{number}", number) for number in range(3)])
    assert await client.run("MGET", f"{key}:0", f"{key}:1", f"{key}:2") == [b"0", b"1", b"2"]
    with pytest.raises(CacheGone, match="WRONGTYPE"):
        await client.run_all([("LPUSH", f"{key}:0", "x"), ("SET", f"{key}:1", "there")])
    reply = client.run_all_soon([("INCR", f"{key}:0"), ("INCR", f"{key}:2")])
    assert reply is not None
    assert await reply == 3
    assert await client.run("MGET", f"{key}:0", f"{key}:1", f"{key}:2") == [b"1", b"there", b"3"]


async def test_what_nobody_awaits_is_done_too(client: CacheClient, key: str) -> None:
    client.script_soon(Script(f"{PUT.text} -- {key}"), [key], ["one"])  # unknown to the server
    client.run_soon("SET", f"{key}:plain", "two")
    await eventually(client, key, b"one")
    await eventually(client, f"{key}:plain", b"two")


async def test_what_nobody_awaits_is_done_before_the_client_closes(redis_url: str, key: str) -> None:
    async with cache_client(redis_url) as client:
        client.run_soon("SET", key, "words")
    with pytest.raises(CacheGone):
        await client.run("PING")
    client.run_soon("SET", key, "too late")
    async with cache_client(redis_url) as other:
        assert await other.run("GET", key) == b"words"


async def test_who_waits_for_it_may_leave_and_it_is_done_all_the_same(redis_url: str, key: str) -> None:
    """Also before the connection is there: it is cancelled while the command has not been sent."""
    async with cache_client(redis_url) as client:
        with REDIS.patience(0):
            await client.seen(client.run_soon("SET", f"{key}:impatient", "one"))
        waiting = asyncio.create_task(client.seen(client.run_soon("SET", key, "two")))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        await eventually(client, f"{key}:impatient", b"one")
        await eventually(client, key, b"two")


async def test_what_nobody_awaits_is_bounded(
    client: CacheClient, key: str, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    monkeypatch.setattr("gateway.cache.client.BACKGROUND_LIMIT", 3)
    metrics = Metrics()
    async with cache_client(redis_url, metrics=metrics) as bounded:
        for _ in range(5):
            bounded.run_soon("INCR", key)
    assert await client.run("GET", key) == b"3"
    assert failures(metrics, "dropped") == 2


async def test_used_up_patience_asks_nothing(client: CacheClient, key: str) -> None:
    with REDIS.patience(0.3) as purse:
        await client.run("SET", key, 1)
        assert 0 < purse.left < 0.3
        purse.spend(1)
        with pytest.raises(CacheGone):
            await client.run("SET", key, 2)
    assert await client.run("GET", key) == b"1"


async def test_a_caller_that_leaves_takes_nobody_with_it(client: CacheClient, key: str) -> None:
    await client.run("PING")
    calls = [asyncio.create_task(client.run("INCR", key)) for _ in range(10)]
    await asyncio.sleep(0)
    calls[0].cancel()  # before the write: this one is not sent
    await asyncio.sleep(0)
    calls[5].cancel()  # after it
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert [reply for reply in replies if isinstance(reply, int)] == [1, 2, 3, 4, 6, 7, 8, 9]
    assert await client.run("GET", key) == b"9"


async def test_its_state_is_told(client: CacheClient) -> None:
    assert await client.state() == "ok"


async def test_a_database_number_is_chosen(redis_url: str, key: str) -> None:
    numbered = f"{redis_url}?db=3" if redis_url.startswith("unix") else f"{redis_url.rstrip('/0')}/3"
    async with cache_client(numbered) as third, cache_client(redis_url) as first:
        await third.run("SET", key, "third")
        await first.run("SET", key, "first")
        assert await third.run("GET", key) == b"third"
