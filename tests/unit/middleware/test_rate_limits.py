"""Limits on the way of a request: 429 that says whose and what to do, and slots that last as long as the paid call."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.access.principal import Limits as Given
from gateway.cache.client import CacheGone, Reply
from gateway.cache.wire import Command
from gateway.errors import GatewayError, render
from gateway.limits.limits import Bound, Bounds, Lane, Limits
from gateway.middleware.rate_limits import RateLimitsMiddleware, bounds_of, duration
from gateway.patience import REDIS
from gateway.proxy.exchange import Exchange, exchange_of
from gateway.proxy.paid_calls import PaidCalls
from gateway.telemetry import Metrics
from tests.fakes.asgi import Sent, call, http, ok, with_exchange
from tests.fakes.cache import GoneCache
from tests.fakes.clock import FakeClock
from tests.fakes.principals import TEAM_ID, UNLIMITED, principal


def given(per_minute: int | None = None, in_flight: int | None = None) -> Given:
    return Given(requests_per_minute=per_minute, max_in_flight=in_flight)


class Rig:
    """The middleware before an app of the test, counting in the process."""

    def __init__(self, lane: Lane = Lane.PAID, cache: GoneCache | None = None, **limits: Given) -> None:
        self.cache, self.clock = cache or GoneCache(), FakeClock()
        self.limits = Limits(self.cache, self.clock, Metrics())
        self.paid_calls = PaidCalls(100)
        self._lane = lane
        self._principal = principal(**limits)

    async def call(self, app: ASGIApp = ok) -> Sent:
        scope = http("POST", "/v1/images/generations")
        seat = self.paid_calls.take_seat() if self._lane is Lane.PAID else None  # as `request_body` does it
        with_exchange(scope, principal=self._principal, seat=seat)
        return await call(RateLimitsMiddleware(app, limits=self.limits, lane=self._lane), scope)

    async def refused(self) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.call()
        return caught.value


class SlowCache(GoneCache):
    """Redis that has what is given back when `reply` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.reply: Reply = asyncio.get_running_loop().create_future()

    def run_all_soon(self, commands: Sequence[Command]) -> Reply:
        return self.reply


def start(rig: Rig, exchange: Exchange, call: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """As the endpoint does it."""
    assert exchange.seat is not None
    return exchange.seat.start(call)


def seated(rig: Rig, ends: asyncio.Event, leave: asyncio.Event) -> ASGIApp:
    """A paid endpoint: its call runs until `ends`, its client waits for that or until `leave`."""

    async def paid() -> None:
        await ends.wait()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = start(rig, exchange_of(scope), paid())
        left = asyncio.create_task(leave.wait())
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if task.done():
            await ok(scope, receive, send)

    return app


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_bounds_are_the_principal_s() -> None:
    found = bounds_of(principal(team_limits=given(60, 2), key_limits=given(None, 1)))
    assert found == Bounds(str(TEAM_ID), "0123456789", Bound(60, 2), Bound(None, 1))


async def test_without_limits_nothing_is_asked() -> None:
    rig = Rig(team_limits=UNLIMITED, key_limits=UNLIMITED)
    assert (await rig.call()).status == 200
    assert (rig.cache.asked, rig.cache.soon) == (0, [])


async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise errors.overloaded("No room.")


def called(rig: Rig) -> ASGIApp:
    """A paid endpoint: its call ends at once, its client is answered after that."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        start(rig, exchange, asyncio.sleep(0))
        assert exchange.seat is not None
        await exchange.seat.over()
        await ok(scope, receive, send)

    return app


@pytest.mark.parametrize("refused", [False, True])
async def test_no_answer_before_the_slot_is_free_for_every_process(refused: bool) -> None:
    """Whose client waits for each answer needs one slot, whichever process its next call meets."""
    cache = SlowCache()
    rig = Rig(cache=cache, key_limits=given(None, 1))
    answer = asyncio.create_task(rig.call(fail if refused else called(rig)))
    await turns()
    assert not answer.done()
    cache.reply.set_result(1)
    await asyncio.wait({answer}, timeout=1)
    assert answer.done()
    assert (answer.exception() is None) != refused


async def test_an_answer_waits_for_redis_no_longer_than_any_command() -> None:
    cache = SlowCache()
    rig = Rig(cache=cache, key_limits=given(None, 1))
    cache.reply.set_exception(CacheGone("no answer in time"))
    assert (await rig.call(called(rig))).status == 200


async def test_who_has_waited_for_redis_long_enough_is_answered_without_waiting_more() -> None:
    rig = Rig(cache=SlowCache(), key_limits=given(None, 1))
    with REDIS.patience(0.1):
        assert (await asyncio.wait_for(rig.call(called(rig)), 1)).status == 200
    assert rig.limits.running == 0


async def test_a_key_s_rate() -> None:
    rig = Rig(key_limits=given(2))
    for _ in range(2):
        assert (await rig.call()).status == 200
    error = await rig.refused()
    assert (error.status, error.type, error.reason) == (429, "rate_limit_error", "requests_per_minute")
    assert (
        "The key 'laptop' (0123456789) has used up its requests_per_minute. Paid calls are limited to 2"
        in error.message
    )
    assert "30s" in error.message
    assert dict(render(error, "req_1")[0]) == {
        b"content-type": b"application/json",
        b"content-length": dict(render(error, "req_1")[0])[b"content-length"],
        b"retry-after": b"30",
        b"retry-after-ms": b"30000",
        b"x-ratelimit-limit-requests": b"2",
        b"x-ratelimit-remaining-requests": b"0",
        b"x-ratelimit-reset-requests": b"1m0s",
        b"x-should-retry": b"true",
    }
    rig.clock.forward(30)
    assert (await rig.call()).status == 200


async def test_a_team_s_rate_of_polls() -> None:
    rig = Rig(Lane.FREE, team_limits=given(60, 1))
    for _ in range(600):
        await rig.call()
    error = await rig.refused()
    assert (
        "The team 'alpha' has used up its requests_per_minute. Reads of tasks and models are limited to 600"
        in error.message
    )
    assert error.headers["retry-after-ms"] == "100"
    assert error.headers["x-ratelimit-limit-requests"] == "600"


async def test_calls_in_flight() -> None:
    rig, ends, leave = Rig(team_limits=given(None, 1)), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(rig.call(seated(rig, ends, leave)))
    await turns()
    error = await rig.refused()
    assert (error.status, error.type, error.reason) == (429, "rate_limit_error", "calls_in_flight")
    assert (
        "The team 'alpha' has as many paid calls under way as its max_in_flight allows: 1." in error.message
    )
    assert error.headers == {
        "retry-after": "1",
        "retry-after-ms": "1000",
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
    }
    ends.set()
    assert (await running).status == 200
    assert (await rig.call()).status == 200


async def test_a_slot_stays_taken_until_the_call_ends_not_until_its_client_leaves() -> None:
    rig, ends, leave = Rig(key_limits=given(None, 1)), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(rig.call(seated(rig, ends, leave)))
    await turns()
    leave.set()
    await running
    assert (await rig.refused()).reason == "calls_in_flight"
    assert rig.limits.running == 1
    ends.set()
    await turns()
    assert rig.limits.running == 0
    assert (await rig.call()).status == 200


async def test_a_slot_is_free_before_the_answer_is_begun() -> None:
    """Whoever sends its next call upon the answer must find it."""
    rig = Rig(key_limits=given(None, 1))
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        start(rig, exchange, asyncio.sleep(0))
        assert exchange.seat is not None
        await exchange.seat.over()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        seen.append(rig.limits.running)
        await send({"type": "http.response.body", "body": b""})

    await rig.call(app)
    assert seen == [0]
    assert [command[0] for command in rig.cache.soon] == ["ZREM"]


async def test_a_request_that_started_no_call_gives_its_slot_back() -> None:
    rig = Rig(key_limits=given(None, 1))

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("refused further in")

    for _ in range(3):
        with pytest.raises(RuntimeError):
            await rig.call(app)
    assert rig.limits.running == 0


async def test_what_an_app_sends_passes_unchanged() -> None:
    limited, free = Rig(key_limits=given(None, 1)), Rig()
    assert (await limited.call()).messages == (await free.call()).messages


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0001, "1ms"),
        (0.35, "350ms"),
        (0.9991, "1s"),
        (1, "1s"),
        (1.2, "2s"),
        (59.2, "1m0s"),
        (90, "1m30s"),
        (360, "6m0s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: Any, text: str) -> None:
    assert duration(seconds) == text
