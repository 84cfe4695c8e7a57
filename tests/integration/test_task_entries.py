"""Readings in Redis: shared by processes, never another task's, never older than what is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from gateway.cache.client import CacheClient
from gateway.clock import SystemClock
from gateway.tasks.entries import LARGEST_IN_REDIS, TaskEntries
from gateway.telemetry import Metrics


@asynccontextmanager
async def opened(redis_url: str) -> AsyncIterator[CacheClient]:
    client = CacheClient(
        redis_url,
        connect_timeout=2,
        timeout=2,
        breaker_failures=5,
        breaker_seconds=30,
        clock=SystemClock(),
        metrics=Metrics(),
    )
    yield client
    await client.close()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[CacheClient]:
    async with opened(redis_url) as found:
        yield found


def entries(client: CacheClient, unfinished: float = 30.0) -> TaskEntries:
    """The entries of one process."""
    return TaskEntries(client, SystemClock(), unfinished=unfinished, finished=3600)


async def shared(client: CacheClient, team: UUID, task: str) -> bytes | None:
    """What Redis has, once everything sent in the background is there."""
    found: bytes | None = await client.run("GET", f"pxg:task:{team.hex}:{task}")
    return found


async def kept(client: CacheClient, team: UUID, task: str) -> None:
    for _ in range(200):
        if await shared(client, team, task) is not None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("never arrived")


async def test_what_one_process_reads_another_finds(client: CacheClient) -> None:
    team, one, other = uuid4(), entries(client), entries(client)
    one.keep(team, "t", one.fresh(3, "processing", b"body", ended=False))
    await kept(client, team, "t")
    found = await other.find(team, "t")
    assert found is not None
    assert (found.body, found.status, found.ended, found.number, found.cache) == (
        b"body",
        "processing",
        False,
        3,
        "hit",
    )
    now = SystemClock().monotonic()
    assert -0.1 < now - found.seen_at < 2
    assert 28 < found.fresh_until - now <= 30.01
    assert other.known(team, "t") == found


async def test_another_team_finds_nothing(client: CacheClient) -> None:
    team, one = uuid4(), entries(client)
    one.keep(team, "t", one.fresh(1, "processing", b"body", ended=False))
    await kept(client, team, "t")
    for process in (one, entries(client)):
        assert process.known(uuid4(), "t") is None
        assert await process.find(uuid4(), "t") is None


@pytest.mark.parametrize("what", ["team", "task"])
async def test_an_entry_under_another_s_name_is_none(client: CacheClient, what: str) -> None:
    team, stranger, one = uuid4(), uuid4(), entries(client)
    one.keep(team, "t", one.fresh(1, "processing", b"body", ended=False))
    await kept(client, team, "t")
    owner, task = (stranger, "t") if what == "team" else (team, "u")
    await client.run("RENAME", f"pxg:task:{team.hex}:t", f"pxg:task:{owner.hex}:{task}")
    assert await entries(client).find(owner, task) is None


@pytest.mark.parametrize("value", [b"", b"x", b"0" * 20, b"0" * 20 + b"\x90"])
async def test_an_entry_that_cannot_be_read_is_none(client: CacheClient, value: bytes) -> None:
    team = uuid4()
    await client.run("SET", f"pxg:task:{team.hex}:t", value, "PX", 5000)
    assert await entries(client).find(team, "t") is None


async def test_an_older_reading_never_covers_a_newer(client: CacheClient) -> None:
    team, slow, quick = uuid4(), entries(client), entries(client)
    quick.keep(team, "t", quick.fresh(2, "completed", b"new", ended=True))
    await kept(client, team, "t")
    before = await shared(client, team, "t")
    assert slow.keep(team, "t", slow.fresh(9, "processing", b"old", ended=False)).body == b"old"
    assert quick.keep(team, "t", quick.fresh(9, "processing", b"old", ended=False)).body == b"new"
    assert await shared(client, team, "t") == before
    third = await entries(client).find(team, "t")
    assert third is not None
    assert (third.body, third.ended) == (b"new", True)


async def test_another_s_newer_reading_outdates_what_is_remembered(client: CacheClient) -> None:
    team, one = uuid4(), entries(client)
    one.keep(team, "t", one.fresh(2, "processing", b"old", ended=False))
    assert not one.outdate("t", False, 2)  # its own word
    assert one.known(team, "t") is not None
    assert one.outdate("t", True, 3)
    assert one.known(team, "t") is None
    assert one.outdate("unheard-of", False, 1)


async def test_an_entry_ends_and_redis_may_lose_it(client: CacheClient) -> None:
    team, one, other = uuid4(), entries(client, unfinished=0.3), entries(client, unfinished=0.3)
    one.keep(team, "t", one.fresh(1, "processing", b"body", ended=False))
    await kept(client, team, "t")
    for _ in range(300):
        if await other.find(team, "t") is None and one.known(team, "t") is None:
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("it never ends")


async def test_large_bodies_are_left_to_postgres(client: CacheClient) -> None:
    team, one = uuid4(), entries(client)
    reading = one.fresh(1, "completed", b"x" * (LARGEST_IN_REDIS + 1), ended=True)
    assert one.keep(team, "t", reading) == reading
    one.keep(team, "u", one.fresh(1, "completed", b"x", ended=True))
    await kept(client, team, "u")
    assert one.known(team, "t") is None
    assert await shared(client, team, "t") is None


async def test_memory_is_bounded(client: CacheClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.tasks.entries.MEMORY_BYTES", 100_000)
    team, one = uuid4(), entries(client)
    for number in range(200):
        one.keep(team, f"t{number}", one.fresh(1, "completed", b"x" * 1000, ended=True))
    known = [number for number in range(200) if one.known(team, f"t{number}") is not None]
    assert 50 <= len(known) <= 100
    assert known[-1] == 199
