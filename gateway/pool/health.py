"""What an outcome does to the key it came through. Pure; times are monotonic seconds.

Reads and paid calls rest separately, so a poll limit does not stop sales and an empty account can still be polled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from gateway.upstream.outcomes import Outcome, Verdict

REFUSED_SECONDS = 60.0
EXHAUSTED_SECONDS = 300.0
EXHAUSTED_LONGEST = 3600.0
THROTTLED_DEFAULT, THROTTLED_SHORTEST, THROTTLED_LONGEST = 5.0, 1.0, 60.0


class Use(Enum):
    """What a key is leased for."""

    PAID = "paid"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Health:
    """Until when a key rests, by use, and why; `refusals` counts rests of one kind in a row."""

    paid_until: float = 0.0
    reads_until: float = 0.0
    reason: str | None = None
    refusals: int = 0

    def until(self, use: Use) -> float:
        return self.paid_until if use is Use.PAID else self.reads_until

    def rests(self, use: Use, now: float) -> bool:
        return self.until(use) > now


HEALTHY = Health()


def after(health: Health, use: Use, outcome: Outcome, now: float) -> Health:
    """The health of a key after this outcome of one call through it."""
    verdict = outcome.verdict
    if verdict is Verdict.KEY_REFUSED:
        rest = now + REFUSED_SECONDS
        return replace(
            health, paid_until=rest, reads_until=rest, reason="refused", refusals=health.refusals + 1
        )
    if verdict is Verdict.KEY_EXHAUSTED:
        again = health.refusals if health.reason == "out_of_credits" else 0
        rest = now + min(EXHAUSTED_SECONDS * 2**again, EXHAUSTED_LONGEST)
        return replace(health, paid_until=rest, reason="out_of_credits", refusals=again + 1)
    if verdict is Verdict.THROTTLED:
        asked = THROTTLED_DEFAULT if outcome.retry_after is None else outcome.retry_after
        rest = now + min(max(asked, THROTTLED_SHORTEST), THROTTLED_LONGEST)
        if use is Use.PAID:
            return replace(health, paid_until=rest, reason="throttled")
        return replace(health, reads_until=rest, reason=health.reason or "throttled")
    if verdict is Verdict.ANSWERED and use is Use.PAID and health is not HEALTHY:
        return HEALTHY
    return health
