"""Requests a minute and calls in flight, for a team key and its whole team, over all processes.

One script call asks and takes, from every bound or from none. A call in flight holds a lease that this process renews
while the call runs, so the slots of a process that was killed are free within `LEASE_SECONDS`. Without Redis each
process counts alone: more generous, never closed. When Redis is back, the calls under way are put into it again.

There are two lanes. `PAID` has what the key and the team were given. `FREE` (polls, model lists) has an allowance of
its own, so polling never eats what pays. Who has no limit costs no call of Redis.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import count
from secrets import token_hex
from typing import Any, Literal

from gateway.cache.client import CacheClient, CacheGone, Reply
from gateway.clock import Clock
from gateway.limits.local import LocalLimits
from gateway.limits.scripts import RENEW, TAKE
from gateway.telemetry import Metrics

LEASE_SECONDS = 20.0
RENEW_SECONDS = 5.0  # three renewals may be lost
RENEW_BATCH = 500  # leases a script call: Redis does nothing else meanwhile
FULL_SECONDS = 1.0  # nobody knows when a call ends: how long to wait before the next try
FREE_FACTOR, FREE_LEAST = 10, 600
_MICRO = 1_000_000

Scope = Literal["key", "team"]


class Lane(StrEnum):
    """Whose allowance a request draws on."""

    PAID = "paid"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class Bound:
    """What one key or one team may; None is unlimited."""

    requests_per_minute: int | None
    max_in_flight: int | None


@dataclass(frozen=True)
class Bounds:
    """What holds for one request: that of its key, and that of its key's team. Worth keeping for the next one."""

    team_id: str
    key_id: str
    team: Bound
    key: Bound

    @cached_property
    def paid(self) -> Plan:
        """What to ask in the lane of paid calls."""
        return _plan(self, Lane.PAID)

    @cached_property
    def free(self) -> Plan:
        return _plan(self, Lane.FREE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which bound has no room. Seconds until it is worth another try, and until the allowance is whole again."""

    scope: Scope
    by: Literal["requests_per_minute", "calls_in_flight"]
    limit: int
    wait: float
    until_full: float


class Taken:
    """What a request has taken; `release` gives its slots among the calls in flight back, once."""

    __slots__ = ("_freeing", "_limits", "keys", "lease")

    def __init__(self, limits: Limits | None, lease: str, keys: tuple[str, ...]) -> None:
        self._limits = limits
        self._freeing: Reply | None = None
        self.lease = lease
        self.keys = keys

    def release(self) -> Reply | None:
        """In the background, and as often as one likes. With the reply, if any, every process finds it free."""
        if self._limits is not None and self._freeing is None:
            self._freeing = self._limits.give_back(self)
        return self._freeing

    async def freed(self) -> None:
        """Releases, and returns when every process finds it free, or Redis does not say so in time."""
        if self._limits is not None:
            await self._limits.seen(self.release())


_NOTHING = Taken(None, "", ())
_TAKEN = [0]  # what the script answers then


@dataclass(frozen=True, slots=True)
class _Limit:
    key: str
    scope: Scope
    limit: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask for one request."""

    rates: tuple[_Limit, ...]
    flights: tuple[_Limit, ...]
    keys: tuple[str, ...]  # rates first
    flight_keys: tuple[str, ...]
    limits: tuple[int, ...]  # each key's


class Limits:
    """Asks Redis through `cache`; `clock` measures only while it is gone."""

    def __init__(self, cache: CacheClient, clock: Clock, metrics: Metrics) -> None:
        self._cache = cache
        self._clock = clock
        self._counted = {lane: metrics.limits_local.labels(lane.value) for lane in Lane}
        self._local = LocalLimits()
        self._running: dict[str, Taken] = {}  # by lease
        self._process = token_hex(8)
        self._numbers = count(1)

    @property
    def running(self) -> int:
        """How many calls of this process hold leases."""
        return len(self._running)

    async def take(self, bounds: Bounds, lane: Lane) -> Taken | Refusal:
        """Room for one request in every bound of its lane, or the bound that has none; then nothing was taken."""
        plan = bounds.paid if lane is Lane.PAID else bounds.free
        if not plan.keys:
            return _NOTHING
        taken = Taken(self, f"{self._process}-{next(self._numbers)}", plan.flight_keys)
        arguments: tuple[str | int, ...] = (
            len(plan.rates),
            taken.lease,
            int(LEASE_SECONDS * _MICRO),
            *plan.limits,
        )
        refusal: Refusal | None = None
        try:
            reply = await self._cache.script(TAKE, plan.keys, arguments)
            if reply != _TAKEN:
                refusal = _refusal(reply, plan)
        except CacheGone:
            self._counted[lane].inc()
            refusal = self._take_locally(plan)
            if refusal is not None:
                self._free(taken)  # perhaps it was taken there, and only the reply was late
        except asyncio.CancelledError:
            self._free(taken)
            raise
        if refusal is not None:
            return refusal
        if taken.keys:
            self._running[taken.lease] = taken
            self._local.began(taken.keys)
        return taken

    async def renew(self) -> None:
        """Makes every lease of this process last from now; to be called every `RENEW_SECONDS`."""
        running = [taken for taken in self._running.values() if taken.keys]
        for start in range(0, len(running), RENEW_BATCH):
            by_key: dict[str, list[str]] = {}
            # Some may have ended while the batch before was under way.
            batch = [taken for taken in running[start : start + RENEW_BATCH] if taken.lease in self._running]
            for taken in batch:
                for key in taken.keys:
                    by_key.setdefault(key, []).append(taken.lease)
            arguments: list[str | int] = [int(LEASE_SECONDS * _MICRO)]
            for leases in by_key.values():
                arguments += [len(leases), *leases]
            try:
                await self._cache.script(RENEW, list(by_key), arguments)
            except CacheGone:
                return
            finally:
                # A server that has lost its scripts is sent them anew: behind what was given back meanwhile.
                for taken in batch:
                    if taken.lease not in self._running:
                        self._free(taken)

    def give_back(self, taken: Taken) -> Reply | None:
        """The call has ended. With the reply Redis knows; None when there is none, or no patience to wait for it."""
        if self._running.pop(taken.lease, None) is None:
            return None
        self._local.ended(taken.keys)
        reply = self._free(taken)
        return reply if self._cache.patient else None

    async def seen(self, reply: Reply | None) -> None:
        """Returns when Redis has answered, or has not in time."""
        await self._cache.seen(reply)

    def _free(self, taken: Taken) -> Reply | None:
        if not taken.keys:
            return None
        return self._cache.run_all_soon([("ZREM", key, taken.lease) for key in taken.keys])

    def _take_locally(self, plan: Plan) -> Refusal | None:
        now = int(self._clock.monotonic() * _MICRO)
        allowances = self._local.rates(((rate.key, rate.limit) for rate in plan.rates), now)
        refused = [(one, rate) for one, rate in zip(allowances, plan.rates, strict=True) if not one.allowed]
        if refused:
            one, rate = max(refused, key=lambda pair: pair[0].wait)
            return _too_many(rate, one.wait, one.until_full)
        for flight in plan.flights:
            if self._local.running(flight.key) >= flight.limit:
                return _full(flight)
        self._local.spend(zip((rate.key for rate in plan.rates), allowances, strict=True), now)
        return None


def _plan(bounds: Bounds, lane: Lane) -> Plan:
    """All keys of a team in Redis lie together, by their hash tag."""
    team = f"pxg:{{{bounds.team_id}}}"
    named: list[tuple[str, Scope, Bound]] = [
        (f"key:{bounds.key_id}", "key", bounds.key),
        ("team", "team", bounds.team),
    ]
    rates = tuple(
        _Limit(f"{team}:rate:{lane.value}:{name}", scope, allowed_per_minute(bound.requests_per_minute, lane))
        for name, scope, bound in named
        if bound.requests_per_minute is not None
    )
    flights = tuple(
        _Limit(f"{team}:in-flight:{name}", scope, bound.max_in_flight)
        for name, scope, bound in named
        if bound.max_in_flight is not None and lane is Lane.PAID
    )
    return Plan(
        rates,
        flights,
        keys=tuple(one.key for one in rates + flights),
        flight_keys=tuple(flight.key for flight in flights),
        limits=tuple(one.limit for one in rates + flights),
    )


def allowed_per_minute(requests_per_minute: int, lane: Lane) -> int:
    """A lane's allowance: what was given for paid calls, ten times that and at least 600 for free ones."""
    return requests_per_minute if lane is Lane.PAID else max(FREE_LEAST, FREE_FACTOR * requests_per_minute)


def _refusal(reply: Any, plan: Plan) -> Refusal:
    if not isinstance(reply, list) or not reply or not all(isinstance(one, int) for one in reply):
        raise CacheGone("not a reply of the script")
    number = reply[0]
    if not 0 < number <= len(plan.keys) or (number <= len(plan.rates) and len(reply) != 3):
        raise CacheGone("not a reply of the script")
    if number <= len(plan.rates):
        return _too_many(plan.rates[number - 1], reply[1], reply[2])
    return _full(plan.flights[number - 1 - len(plan.rates)])


def _too_many(rate: _Limit, wait: int, until_full: int) -> Refusal:
    return Refusal(rate.scope, "requests_per_minute", rate.limit, wait / _MICRO, until_full / _MICRO)


def _full(flight: _Limit) -> Refusal:
    return Refusal(flight.scope, "calls_in_flight", flight.limit, FULL_SECONDS, FULL_SECONDS)
