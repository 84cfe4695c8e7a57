"""Holds a request to its key's and its team's limits: requests a minute, and for paid calls how many run at once.

A paid call keeps its slot until the call has ended, not until its client has left. It is free before the first byte of
the answer, so that who sends its next call upon this answer finds it, wherever that goes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from uuid import UUID

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.access.principal import Principal
from gateway.errors import GatewayError
from gateway.limits.limits import Bound, Bounds, Lane, Limits, Refusal
from gateway.proxy.exchange import Exchange, exchange_of

_Given = tuple[int | None, int | None]  # requests a minute, calls in flight


class RateLimitsMiddleware:
    """Raises 429 before anything is held; sits behind authentication, and on paid routes before `credit_quota`."""

    def __init__(self, app: ASGIApp, *, limits: Limits, lane: Lane) -> None:
        self._app = app
        self._limits = limits
        self._lane = lane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        principal = exchange.principal
        if principal is None:
            raise errors.internal_error()
        taken = await self._limits.take(bounds_of(principal), self._lane)
        if isinstance(taken, Refusal):
            raise refused(taken, principal, self._lane)
        if exchange.seat is not None:
            exchange.seat.free = taken.release
        try:
            await self._app(scope, receive, send)
        except GatewayError:
            if not _started(exchange):
                await taken.freed()
            raise
        finally:
            if not _started(exchange):
                taken.release()


def _started(exchange: Exchange) -> bool:
    """Whether there is a call, which gives back what was taken when it has ended."""
    return exchange.seat is not None and exchange.seat.started


def bounds_of(principal: Principal) -> Bounds:
    """What holds for a principal."""
    team, key = principal.team_limits, principal.key_limits
    return _bounds(
        principal.team_id,
        principal.key_id,
        (team.requests_per_minute, team.max_in_flight),
        (key.requests_per_minute, key.max_in_flight),
    )


@lru_cache(maxsize=10_000)
def _bounds(team_id: UUID, key_id: str, team: _Given, key: _Given) -> Bounds:
    return Bounds(str(team_id), key_id, team=Bound(*team), key=Bound(*key))


def refused(refusal: Refusal, principal: Principal, lane: Lane) -> GatewayError:
    """The 429: whose limit it is, how high, and what to do."""
    if refusal.scope == "team":
        whose = f"The team '{principal.team_slug}'"
    else:
        whose = f"The key '{principal.key_name}' ({principal.key_id})"
    allowance = {
        "x-ratelimit-limit-requests": str(refusal.limit),
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": duration(refusal.until_full),
    }
    detail = {"limit": {"scope": refusal.scope, "by": refusal.by, "limit": refusal.limit, "lane": lane.value}}
    if refusal.by == "calls_in_flight":
        return errors.rate_limited(
            f"{whose} has as many paid calls under way as its max_in_flight allows: {refusal.limit}. Nothing was sent; "
            "try again when one has ended, or ask the platform team for more.",
            "calls_in_flight",
            refusal.wait,
            allowance=allowance,
            detail=detail,
        )
    what = "Paid calls" if lane is Lane.PAID else "Reads of tasks and models"
    return errors.rate_limited(
        f"{whose} has used up its requests_per_minute. {what} are limited to {refusal.limit} a minute. Nothing was "
        f"sent; try again in {duration(refusal.wait)}, spread them, or ask the platform team for more.",
        "requests_per_minute",
        refusal.wait,
        allowance=allowance,
        detail=detail,
    )


def duration(seconds: float) -> str:
    """As OpenAI writes it, rounded up: `350ms`, `12s`, `1m30s`."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
