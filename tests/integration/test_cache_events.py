"""Events between processes on a real server: heard at once, gaps told, connections made again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from secrets import token_hex

import pytest
from redis.asyncio.connection import parse_url

from gateway.cache import events
from gateway.cache.client import CacheClient
from gateway.cache.events import CHANNEL, Event, Events
from gateway.clock import SystemClock
from tests.fakes.cache import cache_client
from tests.fakes.clock import BEGINNING, FakeClock
from tests.faults.proxy import FaultProxy, proxied


class Listener:
    """What one process heard, gaps as the word "gap"."""

    def __init__(self, heard_by: Events, topic: str) -> None:
        self.heard: list[Event | str] = []
        heard_by.listen(topic, self.heard.append)
        heard_by.on_gap(lambda: self.heard.append("gap"))

    @property
    def idents(self) -> list[str]:
        return [event if isinstance(event, str) else event.ident for event in self.heard]


async def until(true: Callable[[], object], seconds: float = 2.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.002)


@pytest.fixture
def topic() -> str:
    return f"test {token_hex(8)}"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[CacheClient]:
    async with cache_client(redis_url, timeout=2.0) as client:  # a busy machine is no matter here
        yield client


@asynccontextmanager
async def running(url: str, client: CacheClient, topic: str) -> AsyncIterator[tuple[Events, Listener]]:
    """Events that have subscribed, as one process has them."""
    own = Events(url, client, SystemClock(), connect_timeout=0.1)
    listener = Listener(own, topic)
    task = asyncio.create_task(own.run())
    try:
        await until(lambda: own.connected)
        yield own, listener
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[FaultProxy]:
    options = parse_url(redis_url)
    target = options.get("path") or (options.get("host", "localhost"), options.get("port", 6379))
    async with proxied(target) as proxy:
        yield proxy


def address(proxy: FaultProxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}"


async def test_every_process_hears_an_event_its_sender_too(
    redis_url: str, client: CacheClient, topic: str
) -> None:
    async with (
        running(redis_url, client, topic) as (one, first),
        running(redis_url, client, topic) as (_, second),
    ):
        assert (first.heard, second.heard) == (["gap"], ["gap"])
        one.publish(topic, "a")
        assert await one.publish_now(topic, "b ü")
        one.publish(f"{topic} another", "c")
        one.publish(topic, "d")
        await until(lambda: len(first.heard) == len(second.heard) == 4)
        assert first.idents == second.idents == ["gap", "a", "b ü", "d"]


async def test_an_event_carries_the_time_it_was_sent(redis_url: str, client: CacheClient, topic: str) -> None:
    sender = Events(redis_url, client, FakeClock(12.5), connect_timeout=0.1)
    async with running(redis_url, client, topic) as (_, listener):
        sender.publish(topic, "a")
        await until(lambda: len(listener.heard) == 2)
    assert listener.heard[1] == Event(topic, "a", BEGINNING.timestamp() + 12.5)
    assert not sender.connected


@pytest.mark.parametrize("message", [b"", b"{", b"\xff", b"[1]", b'{"topic": 1, "ident": "a", "sent_at": 1}'])
async def test_a_message_that_is_none_is_ignored(
    redis_url: str, client: CacheClient, topic: str, message: bytes
) -> None:
    async with running(redis_url, client, topic) as (own, listener):
        await client.run("PUBLISH", CHANNEL, message)
        own.publish(topic, "a")
        await until(lambda: listener.idents == ["gap", "a"])


async def test_a_field_of_a_later_version_is_ignored(redis_url: str, client: CacheClient, topic: str) -> None:
    async with running(redis_url, client, topic) as (_, listener):
        message = f'{{"topic": "{topic}", "ident": "a", "sent_at": 1, "colour": "blue"}}'
        await client.run("PUBLISH", CHANNEL, message)
        await until(lambda: listener.idents == ["gap", "a"])


async def test_a_listener_that_fails_is_logged_and_the_others_hear(
    redis_url: str, client: CacheClient, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = Events(redis_url, client, SystemClock(), connect_timeout=0.1)

    def fail(_: Event) -> None:
        raise RuntimeError("a defect")

    own.listen(topic, fail)
    listener = Listener(own, topic)
    task = asyncio.create_task(own.run())
    await until(lambda: own.connected)
    own.publish(topic, "a")
    await until(lambda: listener.idents == ["gap", "a"])
    assert [record.message for record in caplog.records] == ["a listener to events failed"]
    task.cancel()
    await asyncio.wait({task})


async def test_a_broken_subscription_is_a_gap_and_is_made_again(
    proxy: FaultProxy, client: CacheClient, topic: str
) -> None:
    async with running(address(proxy), client, topic) as (own, listener):
        for _ in range(3):
            proxy.cut()
            await until(lambda: not own.connected)
            await until(lambda: own.connected)
        own.publish(topic, "a")
        await until(lambda: listener.idents == ["gap"] * 7 + ["a"])


async def test_while_redis_is_gone_it_is_said_once_and_tried_every_second_at_least(
    proxy: FaultProxy,
    client: CacheClient,
    topic: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert max(events.BACKOFF_SECONDS) <= 1.0
    monkeypatch.setattr(events, "BACKOFF_SECONDS", (0.01,))
    async with running(address(proxy), client, topic) as (own, _):
        proxy.kill()
        await until(lambda: not own.connected)
        await asyncio.sleep(0.1)
        await proxy.listen()
        await until(lambda: own.connected)
    assert [record.message for record in caplog.records] == ["events are not heard"]


async def test_a_silent_connection_is_noticed_by_its_pings(
    proxy: FaultProxy, client: CacheClient, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PING_SECONDS", 0.02)
    monkeypatch.setattr(events, "DEAD_SECONDS", 0.1)
    async with running(address(proxy), client, topic) as (own, listener):
        await asyncio.sleep(0.3)
        assert (own.connected, listener.heard) == (True, ["gap"])  # silence with answered pings is none
        proxy.blackhole = True
        await until(lambda: not own.connected)
        proxy.blackhole = False
        await until(lambda: own.connected)
        own.publish(topic, "a")
        await until(lambda: listener.idents == ["gap", "gap", "gap", "a"])


async def test_a_subscription_that_is_refused_is_said(
    redis_url: str, client: CacheClient, caplog: pytest.LogCaptureFixture, topic: str
) -> None:
    caplog.set_level(logging.WARNING)
    user = f"pxg-{token_hex(4)}"
    await client.run("ACL", "SETUSER", user, "on", ">pw", "+@all", "resetchannels", "~*")
    own = Events(redis_url.replace("//", f"//{user}:pw@", 1), client, SystemClock(), connect_timeout=0.1)
    task = asyncio.create_task(own.run())
    try:
        await until(lambda: any("subscribe" in record.message for record in caplog.records))
        assert not own.connected
    finally:
        task.cancel()
        await asyncio.wait({task})
        await client.run("ACL", "DELUSER", user)


async def test_what_cannot_be_published_says_so(proxy: FaultProxy, topic: str) -> None:
    proxy.kill()
    async with cache_client(address(proxy)) as client:
        own = Events(address(proxy), client, SystemClock(), connect_timeout=0.1)
        assert await own.publish_now(topic, "a") is False
        own.publish(topic, "a")
