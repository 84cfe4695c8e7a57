"""What a caller hears when no upstream key can serve its call. Nothing was sent in any of these cases. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gateway import errors
from gateway.pool.health import THROTTLED, Health, Use

LONGEST_RETRY_SECONDS = 10.0  # an SDK waits that long before its user hears what is wrong


def no_key() -> errors.GatewayError:
    """503: the pool has nothing for this call."""
    return errors.upstream_unavailable(
        "No upstream key can serve this call; nothing was sent. The platform team adds one with "
        "'pixapi-gateway upstream-keys add'.",
        "no_upstream_key",
        retry_after=LONGEST_RETRY_SECONDS,
    )


def all_full() -> errors.GatewayError:
    """503: every key is at its own cap."""
    return errors.upstream_unavailable(
        "Every upstream key is at its cap of calls in flight; nothing was sent. Try again shortly, or ask "
        "the platform team for more keys.",
        "upstream_keys_full",
        retry_after=2,
    )


def all_rest(resting: Sequence[Health], use: Use, now: float) -> errors.GatewayError:
    """429 when one of the keys only cools down after Pixapi's 429, else 503."""
    throttled = [health for health in resting if health.reason == THROTTLED]
    wait = max(1.0, min(health.until(use) for health in throttled or resting) - now)
    if throttled:
        return errors.rate_limited(
            "Pixapi asked every usable upstream key to slow down; nothing was sent.",
            "upstream_throttled",
            wait,
        )
    return errors.upstream_unavailable(
        "Every upstream key is refused by Pixapi or out of credits; nothing was sent. The platform team sees "
        "why with 'pixapi-gateway upstream-keys list'.",
        "upstream_keys_resting",
        retry_after=min(wait, LONGEST_RETRY_SECONDS),
    )
