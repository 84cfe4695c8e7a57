"""The limits on a real server: over processes, all or nothing, leases that run out, and the rule in Lua and Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from secrets import token_hex
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.cache.client import CacheClient, Script
from gateway.clock import SystemClock
from gateway.limits import limits as limits_module
from gateway.limits import rate
from gateway.limits.limits import Bound, Bounds, Lane, Limits, Refusal, Taken
from gateway.limits.scripts import RENEW, TAKE
from gateway.telemetry import Metrics
from tests.fakes.cache import cache_client

NONE = Bound(None, None)


@pytest.fixture
async def cache(redis_url: str) -> AsyncIterator[CacheClient]:
    async with cache_client(redis_url, timeout=2.0) as cache:  # a busy machine is no matter here
        yield cache


@pytest.fixture
def team() -> str:
    """A team of this test alone, whoever else uses the server."""
    return token_hex(8)


def process(cache: CacheClient) -> Limits:
    """The limits as one process has them."""
    return Limits(cache, SystemClock(), Metrics())


def bounds(team_id: str, team: Bound = NONE, key: Bound = NONE, key_id: str = "k1") -> Bounds:
    return Bounds(team_id, key_id, team, key)


async def taken(limits: Limits, wanted: Bounds, lane: Lane = Lane.PAID) -> Taken:
    found = await limits.take(wanted, lane)
    assert isinstance(found, Taken), found
    return found


async def refused(limits: Limits, wanted: Bounds, lane: Lane = Lane.PAID) -> Refusal:
    found = await limits.take(wanted, lane)
    assert isinstance(found, Refusal)
    return found


async def leases(cache: CacheClient, team: str, of: str = "key:k1") -> int:
    return int(await cache.run("ZCARD", f"pxg:{{{team}}}:in-flight:{of}"))


async def until_leases(cache: CacheClient, team: str, wanted: int) -> None:
    async with asyncio.timeout(3):
        while await leases(cache, team) != wanted:
            await asyncio.sleep(0.005)


async def test_a_rate_holds_over_processes(cache: CacheClient, team: str) -> None:
    one, other, limit = process(cache), process(cache), bounds(team, key=Bound(3, None))
    for limits in (one, other, one):
        await taken(limits, limit)
    refusal = await refused(other, limit)
    assert (refusal.scope, refusal.by, refusal.limit) == ("key", "requests_per_minute", 3)
    assert 19 < refusal.wait <= 20
    assert 59 < refusal.until_full <= 60


async def test_a_hundred_at_once_get_exactly_what_there_is(cache: CacheClient, team: str) -> None:
    processes, limit = [process(cache), process(cache)], bounds(team, team=Bound(25, 10), key=Bound(None, 8))
    found = await asyncio.gather(*(processes[n % 2].take(limit, Lane.PAID) for n in range(100)))
    through = [one for one in found if isinstance(one, Taken)]
    assert len(through) == 8
    assert {(one.scope, one.by) for one in found if isinstance(one, Refusal)} == {("key", "calls_in_flight")}
    for one in through:
        one.release()
    await until_leases(cache, team, 0)
    # What was refused has not used up the team's 25: 17 are left.
    other = [await processes[0].take(bounds(team, team=Bound(25, None)), Lane.PAID) for _ in range(18)]
    assert [isinstance(one, Taken) for one in other] == [True] * 17 + [False]


async def test_calls_in_flight_hold_over_processes_and_are_free_when_they_end(
    cache: CacheClient, team: str
) -> None:
    one, other, limit = process(cache), process(cache), bounds(team, team=Bound(None, 2))
    first, second = await taken(one, limit), await taken(other, limit)
    assert await refused(one, limit) == Refusal("team", "calls_in_flight", 2, 1.0, 1.0)
    second.release()
    second.release()
    third = await taken(one, limit)  # asked right behind the release, on the same connection
    assert isinstance(await other.take(limit, Lane.PAID), Refusal)
    for call in (first, third):
        call.release()
    assert (one.running, other.running) == (0, 0)


async def test_polls_and_paid_calls_do_not_eat_each_other_s_allowance(cache: CacheClient, team: str) -> None:
    limits, limit = process(cache), bounds(team, key=Bound(1, 1))
    await asyncio.gather(*(taken(limits, limit, Lane.FREE) for _ in range(600)))
    assert (await refused(limits, limit, Lane.FREE)).limit == 600
    running = await taken(limits, limit)
    assert (await refused(limits, limit)).by == "requests_per_minute"
    running.release()


async def test_teams_and_keys_have_nothing_to_do_with_each_other(cache: CacheClient, team: str) -> None:
    limits = process(cache)
    await taken(limits, bounds(team, key=Bound(1, 1)))
    await taken(limits, bounds(team, key=Bound(1, 1), key_id="k2"))
    await taken(limits, bounds(team + "x", key=Bound(1, 1)))


async def test_the_slots_of_a_process_that_was_killed_are_free_when_its_leases_run_out(
    cache: CacheClient, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits_module, "LEASE_SECONDS", 0.3)
    killed, alive, limit = process(cache), process(cache), bounds(team, key=Bound(None, 2))
    await taken(killed, limit)
    await taken(alive, limit)
    await refused(alive, limit)
    async with asyncio.timeout(3):
        while isinstance(await alive.take(limit, Lane.PAID), Refusal):
            await asyncio.sleep(0.02)
            await alive.renew()
    await refused(alive, limit)
    await alive.renew()
    assert await leases(cache, team) == 2  # both of the one that lives


async def test_every_key_expires(cache: CacheClient, team: str) -> None:
    limit = bounds(team, team=Bound(60, 5), key=Bound(6, 5))
    await taken(process(cache), limit)
    await taken(process(cache), limit, Lane.FREE)
    keys = await cache.run("KEYS", f"pxg:{{{team}}}:*")
    assert len(keys) == 6
    lives = [await cache.run("PTTL", key) for key in keys]
    assert all(0 < life <= 61_000 for life in lives)


async def test_renewing_brings_back_what_the_server_has_lost(cache: CacheClient, team: str) -> None:
    limits, limit = process(cache), bounds(team, team=Bound(None, 50), key=Bound(None, 3))
    calls = [await taken(limits, limit) for _ in range(3)]
    await cache.run("DEL", f"pxg:{{{team}}}:in-flight:key:k1", f"pxg:{{{team}}}:in-flight:team")
    await limits.renew()
    assert (await leases(cache, team), await leases(cache, team, "team")) == (3, 3)
    await refused(limits, limit)
    calls[0].release()
    await limits.renew()
    assert await leases(cache, team) == 2


async def test_a_thousand_calls_are_renewed_in_a_few_script_calls(cache: CacheClient, team: str) -> None:
    limits, limit = process(cache), bounds(team, team=Bound(None, 2000), key=Bound(None, 2000))
    await asyncio.gather(*(taken(limits, limit) for _ in range(1000)))
    await cache.run("DEL", f"pxg:{{{team}}}:in-flight:key:k1")
    await limits.renew()
    assert await leases(cache, team) == 1000


async def test_a_caller_that_left_while_it_was_asked_keeps_no_slot(cache: CacheClient, team: str) -> None:
    limits, limit = process(cache), bounds(team, key=Bound(None, 1))
    (await taken(limits, limit)).release()
    await until_leases(cache, team, 0)
    for turns in range(5):  # before it asks, before the write, and after it
        call = asyncio.create_task(limits.take(limit, Lane.PAID))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
        if call.cancelled():
            await until_leases(cache, team, 0)
    assert limits.running <= 1


async def test_a_lower_limit_counts_those_that_run_already(cache: CacheClient, team: str) -> None:
    limits = process(cache)
    calls = [await taken(limits, bounds(team, key=Bound(None, 5))) for _ in range(3)]
    assert (await refused(limits, bounds(team, key=Bound(None, 2)))).limit == 2
    for call in calls[:2]:
        call.release()
    await taken(limits, bounds(team, key=Bound(None, 2)))


async def test_leases_from_before_the_server_s_clock_was_put_back_do_not_stay(
    cache: CacheClient, team: str
) -> None:
    key, limits, limit = f"pxg:{{{team}}}:in-flight:key:k1", process(cache), bounds(team, key=Bound(None, 2))
    running = await taken(limits, limit)
    await cache.run("ZADD", key, 10**16, "of an hour that has not come", 1, "of one long gone")
    await refused(limits, limit)
    await limits.renew()
    assert await cache.run("ZRANGE", key, 0, -1) == [running.lease.encode()]
    await taken(limits, limit)


# The rule in Lua and the rule in Python ---------------------------------------------------------------------

CLOCK = "redis.call('TIME')"
TAKE_AT = Script(TAKE.text.replace(CLOCK, "{0, ARGV[#ARGV]}"))
PATIENT = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_the_scripts_go_by_the_server_s_clock() -> None:
    assert TAKE.text.count(CLOCK) == RENEW.text.count(CLOCK) == 1


async def replayed(url: str, team: str, limit: int, moments: Sequence[int]) -> list[Any]:
    key = f"pxg:{{{team}}}:{token_hex(4)}"
    async with cache_client(url, timeout=2.0) as cache:
        replies = [await cache.script(TAKE_AT, [key], [1, "lease", 1, limit, now]) for now in moments]
        await cache.run("DEL", key)
    return replies


@PATIENT
@given(
    limit=st.one_of(st.integers(1, 20), st.integers(1, 10**6)),
    steps=st.lists(st.integers(0, 30 * 10**6), min_size=1, max_size=25),
    start=st.integers(10**15, 2 * 10**15),
)
def test_both_decide_alike_to_the_microsecond(
    redis_url: str, team: str, limit: int, steps: list[int], start: int
) -> None:
    moments, now = [], start
    for step in steps:
        now += step
        moments.append(now)
    full_at, expected = 0, []
    for now in moments:
        one = rate.take(limit, full_at, now)
        full_at = one.full_at
        expected.append([0] if one.allowed else [1, one.wait, one.until_full])
    assert asyncio.run(replayed(redis_url, team, limit, moments)) == expected
