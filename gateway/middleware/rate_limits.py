"""Holds a request to its key's and its team's limits: requests a minute, and for paid calls how many run at once.

A paid call keeps its slot until the call has ended, not until its client has left.
"""

from __future__ import annotations

import math

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import errors
from gateway.access.principal import Principal
from gateway.errors import GatewayError
from gateway.limits.limits import Bound, Bounds, Lane, Limits, Refusal, Taken
from gateway.proxy.exchange import Exchange, exchange_of


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

        # Before the first byte, so that who sends its next call upon this answer finds the slot free, wherever it goes.
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                _release(taken, exchange)
                await taken.freed()
            await send(message)

        try:
            await self._app(scope, receive, answer if taken.keys else send)
        except GatewayError:
            _release(taken, exchange)
            await taken.freed()
            raise
        finally:
            _release(taken, exchange)


def _release(taken: Taken, exchange: Exchange) -> None:
    """Now, or when the call that was started has ended."""
    if exchange.seat is None:
        taken.release()
    else:
        exchange.seat.when_given_back(taken.release)


def bounds_of(principal: Principal) -> Bounds:
    """What holds for a principal."""
    team, key = principal.team_limits, principal.key_limits
    return Bounds(
        team_id=str(principal.team_id),
        key_id=principal.key_id,
        team=Bound(team.requests_per_minute, team.max_in_flight),
        key=Bound(key.requests_per_minute, key.max_in_flight),
    )


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
