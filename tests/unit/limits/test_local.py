"""The limits without Redis: the same rule on what this process has seen, and back when Redis is."""

from __future__ import annotations

import pytest

from gateway.limits import local
from gateway.limits.limits import Bound, Bounds, Lane, Limits, Refusal, Taken, allowed_per_minute
from gateway.limits.local import LocalLimits
from gateway.telemetry import Metrics
from tests.fakes.cache import GoneCache
from tests.fakes.clock import FakeClock

NONE = Bound(None, None)


class Rig:
    def __init__(self) -> None:
        self.clock, self.cache, self.metrics = FakeClock(), GoneCache(), Metrics()
        self.limits = Limits(self.cache, self.clock, self.metrics)

    async def taken(self, bounds: Bounds, lane: Lane = Lane.PAID) -> Taken:
        taken = await self.limits.take(bounds, lane)
        assert isinstance(taken, Taken), taken
        return taken

    async def refused(self, bounds: Bounds, lane: Lane = Lane.PAID) -> Refusal:
        refusal = await self.limits.take(bounds, lane)
        assert isinstance(refusal, Refusal)
        return refusal

    def counted(self, lane: Lane) -> float | None:
        return self.metrics.registry.get_sample_value("gateway_limits_local_total", {"lane": lane.value})


def bounds(team: Bound = NONE, key: Bound = NONE, key_id: str = "k1", team_id: str = "t1") -> Bounds:
    return Bounds(team_id, key_id, team, key)


async def test_who_has_no_limit_costs_no_call_of_redis() -> None:
    rig = Rig()
    for lane in Lane:
        (await rig.taken(bounds(), lane)).release()
    await rig.taken(bounds(team=Bound(None, 3), key=Bound(None, 3)), Lane.FREE)
    assert (rig.cache.asked, rig.cache.soon, rig.limits.running) == (0, [], 0)


async def test_rates_hold_in_the_process() -> None:
    rig = Rig()
    limit = bounds(key=Bound(2, None))
    await rig.taken(limit)
    await rig.taken(limit)
    assert await rig.refused(limit) == Refusal("key", "requests_per_minute", 2, 30.0, 60.0)
    rig.clock.forward(30)
    await rig.taken(limit)
    await rig.taken(bounds(key=Bound(2, None), key_id="k2"))
    assert rig.counted(Lane.PAID) == 5


async def test_calls_in_flight_hold_in_the_process_and_their_end_is_counted_once() -> None:
    rig = Rig()
    limit = bounds(team=Bound(None, 2), key=Bound(None, 1))
    first = await rig.taken(limit)
    assert await rig.refused(limit) == Refusal("key", "calls_in_flight", 1, 1.0, 1.0)
    other = bounds(team=Bound(None, 2), key_id="k2")
    second = await rig.taken(other)
    assert await rig.refused(other) == Refusal("team", "calls_in_flight", 2, 1.0, 1.0)
    for _ in range(3):
        second.release()
    assert rig.limits.running == 1
    await rig.taken(other)
    assert (await rig.refused(other)).scope == "team"
    first.release()
    await rig.taken(limit)


async def test_a_refusal_by_one_bound_takes_from_none() -> None:
    rig = Rig()
    narrow, wide = bounds(team=Bound(5, 2), key=Bound(1, 1)), bounds(team=Bound(5, 2), key_id="k2")
    await rig.taken(narrow)
    for _ in range(10):
        assert (await rig.refused(narrow)).scope == "key"
    (await rig.taken(wide)).release()
    for _ in range(3):
        (await rig.taken(wide)).release()
    assert await rig.refused(wide) == Refusal("team", "requests_per_minute", 5, 12.0, 60.0)


async def test_the_longest_wait_is_told() -> None:
    rig = Rig()
    limit = bounds(team=Bound(1, None), key=Bound(1, None))
    await rig.taken(bounds(team=Bound(1, None), key_id="k2"))
    rig.clock.forward(20)
    assert (await rig.refused(limit)).scope == "team"
    await rig.taken(bounds(key=Bound(1, None)))
    assert await rig.refused(limit) == Refusal("key", "requests_per_minute", 1, 60.0, 60.0)


@pytest.mark.parametrize(("given", "free"), [(1, 600), (60, 600), (61, 610), (1000, 10_000)])
async def test_polls_have_ten_times_the_allowance_and_at_least_600(given: int, free: int) -> None:
    assert (allowed_per_minute(given, Lane.FREE), allowed_per_minute(given, Lane.PAID)) == (free, given)
    rig = Rig()
    limit = bounds(key=Bound(given, 1))
    for _ in range(free):
        await rig.taken(limit, Lane.FREE)
    refusal = await rig.refused(limit, Lane.FREE)
    assert (refusal.scope, refusal.by, refusal.limit) == ("key", "requests_per_minute", free)
    assert (refusal.wait, refusal.until_full) == pytest.approx((60 / free, 60), abs=1e-2)
    await rig.taken(limit)  # the paid lane is untouched


async def test_what_was_refused_here_is_given_back_there() -> None:
    """The script may have run although its answer never came."""
    rig = Rig()
    limit = bounds(key=Bound(None, 1))
    first = await rig.taken(limit)
    await rig.refused(limit)
    assert [(name, key) for name, key, _ in rig.cache.soon] == [("ZREM", "pxg:{t1}:in-flight:key:k1")]
    assert rig.cache.soon[0][2] != first.lease
    first.release()
    assert rig.cache.soon[1] == ("ZREM", "pxg:{t1}:in-flight:key:k1", first.lease)


async def test_renewing_without_redis_is_left_for_the_next_time() -> None:
    rig = Rig()
    await rig.taken(bounds(key=Bound(None, 5)))
    asked = rig.cache.asked
    await rig.limits.renew()
    assert rig.cache.asked == asked + 1


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MOST_RATES", 10)
    limits, now = LocalLimits(), 10**9
    for number in range(100):
        wanted = [(f"key {number}", 60)]
        limits.spend(zip([f"key {number}"], limits.rates(wanted, now), strict=True), now)
        now += 1_000_000
    (used,) = limits.rates([("key 99", 60)], now - 1_000_000)
    assert used.remaining == 58
    assert len(limits._full_at) <= 11


def test_running_calls_are_forgotten_when_they_end() -> None:
    limits = LocalLimits()
    limits.began(["a", "b"])
    limits.began(["a"])
    assert (limits.running("a"), limits.running("b"), limits.running("c")) == (2, 1, 0)
    limits.ended(["a", "b"])
    limits.ended(["a", "b"])
    assert (limits.running("a"), limits.running("b")) == (0, 0)
    assert len(limits._running) == 0
