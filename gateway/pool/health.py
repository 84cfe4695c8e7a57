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
    if outcome.verdict is Verdict.KEY_REFUSED:
        return _refused(health, now)
    if outcome.verdict is Verdict.KEY_EXHAUSTED:
        return _exhausted(health, now)
    if outcome.verdict is Verdict.THROTTLED:
        return _throttled(health, use, outcome.retry_after, now)
    if outcome.verdict is Verdict.ANSWERED and use is Use.PAID:
        return _answered(health, now)
    return health


def _refused(health: Health, now: float) -> Health:
    again = health.refusals if health.reason == "refused" else 0
    rest = now + REFUSED_SECONDS
    return replace(
        health,
        paid_until=max(health.paid_until, rest),
        reads_until=max(health.reads_until, rest),
        reason="refused",
        refusals=again + 1,
    )


def _exhausted(health: Health, now: float) -> Health:
    again = health.refusals if health.reason == "out_of_credits" else 0
    if again and health.rests(Use.PAID, now):
        return health  # of a call sent before the rest began: no news
    rest = now + min(EXHAUSTED_SECONDS * 2 ** min(again, 10), EXHAUSTED_LONGEST)
    return replace(
        health, paid_until=max(health.paid_until, rest), reason="out_of_credits", refusals=again + 1
    )


def _throttled(health: Health, use: Use, asked: float | None, now: float) -> Health:
    seconds = THROTTLED_DEFAULT if asked is None else asked
    rest = now + min(max(seconds, THROTTLED_SHORTEST), THROTTLED_LONGEST)
    if health.until(use) >= rest:
        return health
    if use is Use.PAID:
        return replace(health, paid_until=rest, reason="throttled")
    return replace(health, reads_until=rest, reason=health.reason or "throttled")


def _answered(health: Health, now: float) -> Health:
    """Forgets rests that are over. While one lasts, the call was sent before it began and proves nothing."""
    if health.reason is None or health.rests(Use.PAID, now):
        return health
    if health.rests(Use.READ, now):
        return Health(reads_until=health.reads_until, reason="throttled")
    return HEALTHY
