"""What an outcome does to the key it came through. Pure; times are seconds of one clock, whichever it is.

Reads and paid calls rest separately, so a poll limit does not stop sales and an empty account can still be polled. The
same functions decide in a process (its monotonic clock) and on the row in Postgres (the database's clock), so all
processes come to the same health. A key that was refused or fails comes back by a look at the free model list alone
(`checks`), one of an empty account by one paid call, its trial.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from gateway.upstream.outcomes import Trouble, Verdict

REFUSED_SECONDS = 60.0
REFUSED_CHECK_SECONDS = 300.0  # between looks at a key that is off
UNDECIDED_SECONDS = 5.0  # after a look that said nothing
EXHAUSTED_SECONDS, EXHAUSTED_LONGEST = 300.0, 3600.0
FAILING_SECONDS, FAILING_LONGEST = 30.0, 300.0
THROTTLED_DEFAULT, THROTTLED_SHORTEST, THROTTLED_LONGEST = 5.0, 1.0, 60.0
FAILURES = 5  # in a row
MODELS = 2  # that fail with Pixapi's error body

REFUSED: Final = "refused"
OUT_OF_CREDITS: Final = "out_of_credits"
FAILING: Final = "failing"
THROTTLED: Final = "throttled"


class Use(Enum):
    """What a key is leased for."""

    PAID = "paid"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Health:
    """Until when a key rests, by use, and why; `count` is how many rests of that kind there were in a row.

    `check_at` is when the model list is to be asked; until it accepts the key, the key goes on resting. `trial_until`
    is how long the one paid call may take that tries an empty account.
    """

    paid_until: float = 0.0
    reads_until: float = 0.0
    reason: str | None = None
    count: int = 0
    check_at: float | None = None
    trial_until: float = 0.0

    def until(self, use: Use) -> float:
        return self.paid_until if use is Use.PAID else self.reads_until

    def rests(self, use: Use, now: float) -> bool:
        if self.until(use) > now:
            return True
        if self.check_at is not None:
            return use is Use.PAID or self.reason == REFUSED
        return self.trial_until > now and use is Use.PAID and self.half_open(now)

    def half_open(self, now: float) -> bool:
        """Whether the rest of an empty account is over, so that one paid call may try it."""
        return self.reason == OUT_OF_CREDITS and self.check_at is None and self.paid_until <= now


HEALTHY = Health()


@dataclass(frozen=True, slots=True)
class Word:
    """What one call says about its key: leased at `since`, ended at `at`.

    `trial`: it was the one that tried an empty account. `broke`: with it the key failed too often in a row.
    """

    use: Use
    verdict: Verdict
    since: float
    at: float
    retry_after: float | None = None
    trial: bool = False
    broke: bool = False


def after(health: Health, word: Word) -> Health:
    """The health of a key after this word; the very same one when it is no news."""
    if word.trial and health.trial_until:
        health = replace(health, trial_until=0.0)
    if word.verdict is Verdict.KEY_REFUSED:
        return _refused(health, word)
    if word.verdict is Verdict.KEY_EXHAUSTED:
        return _exhausted(health, word)
    if word.verdict is Verdict.THROTTLED:
        return _throttled(health, word)
    if word.verdict is Verdict.ANSWERED and word.use is Use.PAID:
        return _answered(health, word)
    return _broken(health, word) if word.broke else health


def _refused(health: Health, word: Word) -> Health:
    if health.reason == REFUSED and health.check_at is not None:
        return health  # known already
    rest = word.at + REFUSED_SECONDS
    return replace(
        health,
        paid_until=max(health.paid_until, rest),
        reads_until=max(health.reads_until, rest),
        reason=REFUSED,
        count=1,
        check_at=word.at,
        trial_until=0.0,
    )


def _exhausted(health: Health, word: Word) -> Health:
    if health.reason == REFUSED and health.check_at is not None:
        return health  # worse is known
    again = health.count if health.reason == OUT_OF_CREDITS else 0
    if again and word.since < health.paid_until:
        return health  # of a call sent before the rest was over: no news
    seconds = min(EXHAUSTED_SECONDS * 2 ** min(again, 10), EXHAUSTED_LONGEST)
    return replace(
        health,
        paid_until=max(health.paid_until, word.at + seconds),
        reason=OUT_OF_CREDITS,
        count=again + 1,
        check_at=None,
        trial_until=0.0,
    )


def _broken(health: Health, word: Word) -> Health:
    if health.check_at is not None or health.reason == OUT_OF_CREDITS:
        return health  # off already, or tried by one call at most
    again = health.count if health.reason == FAILING else 0
    return _opened(health, again, word.at)


def _open_for(again: int) -> float:
    return min(FAILING_SECONDS * float(2 ** min(again, 10)), FAILING_LONGEST)


def _opened_before(health: Health, moment: float) -> bool:
    """Whether the key was open already at this moment, so that who leased it then had no other."""
    if health.reason != FAILING or health.check_at is None:
        return False
    return health.check_at - _open_for(health.count - 1) < moment


def _opened(health: Health, again: int, now: float) -> Health:
    rest = now + _open_for(again)
    return replace(
        health,
        paid_until=max(health.paid_until, rest),
        reason=FAILING,
        count=again + 1,
        check_at=rest,
        trial_until=0.0,
    )


def _throttled(health: Health, word: Word) -> Health:
    seconds = THROTTLED_DEFAULT if word.retry_after is None else word.retry_after
    rest = word.at + min(max(seconds, THROTTLED_SHORTEST), THROTTLED_LONGEST)
    asked_the_last_key = word.use is Use.PAID and _opened_before(health, word.since)
    if asked_the_last_key:  # it answers after all, and is to be left alone for so long
        return replace(health, paid_until=rest, reason=THROTTLED, count=0, check_at=None)
    refused = health.reason == REFUSED and health.check_at is not None
    if refused or health.until(word.use) >= rest:
        return health
    if word.use is Use.READ:
        return replace(health, reads_until=rest, reason=health.reason or THROTTLED)
    if health.check_at is not None or health.reason == OUT_OF_CREDITS:
        return replace(health, paid_until=rest)
    return replace(health, paid_until=rest, reason=THROTTLED, count=0)


def _answered(health: Health, word: Word) -> Health:
    """Forgets rests that are over, by an answer to a call sent after that: one sent before proves nothing."""
    waits = health.check_at is not None or (health.reason == OUT_OF_CREDITS and not word.trial)
    if health.reason is None or waits or word.since < health.paid_until:
        return health
    if health.rests(Use.READ, word.at):
        known = Health(reads_until=health.reads_until, reason=THROTTLED)
        return health if replace(health, paid_until=0.0) == known else known
    return HEALTHY


# The breaker ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failures:
    """Paid calls of one process through one key that failed in a row, apart by whether they carried Pixapi's error
    body; of these, for which models. A model that is broken, or refuses in the wrong way, fails with such a body."""

    bare: int = 0
    worded: int = 0
    models: frozenset[str] = frozenset()

    @property
    def too_many(self) -> bool:
        worded = self.worded if len(self.models) >= MODELS else 0
        return self.bare + worded >= FAILURES


NO_FAILURES = Failures()


def counted(failures: Failures, health: Health, word: Word, trouble: Trouble | None, model: str) -> Failures:
    """The failures in a row after this word. What says nothing about Pixapi (never sent) leaves them as they are."""
    if word.use is Use.READ or word.verdict is Verdict.NOT_SENT:
        return failures
    if trouble is None:
        return failures if word.verdict is Verdict.UNKNOWN else NO_FAILURES
    if health.reason == FAILING and word.since < health.paid_until:
        return failures  # of a call sent before the key was given up, or while it was the last
    if trouble is Trouble.BARE:
        return replace(failures, bare=failures.bare + 1)
    return replace(failures, worded=failures.worded + 1, models=failures.models | {model})


def is_relied_on(health: Health, now: float) -> bool:
    """Whether the key can take paid calls now or, after Pixapi's 429, in a moment; while another one can, a failing
    key is not the last."""
    return not health.rests(Use.PAID, now) or (health.reason == THROTTLED and health.check_at is None)


# Looks at the model list ------------------------------------------------------------------------------------


class Look(Enum):
    """What the model list says of a key."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNDECIDED = "undecided"  # no answer, or one that says nothing of the key


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a look changes: the health, and whether the key is off from now on."""

    health: Health
    off: bool


def looked(health: Health, look: Look, now: float, *, off: bool) -> Ruling:
    """What a look at the model list means for a key that waits for one; `off`: it is off already."""
    if look is Look.REFUSED:
        return Ruling(_off(health, now), True)
    if off:
        if look is Look.ACCEPTED:
            return Ruling(HEALTHY, False)
        return Ruling(replace(health, check_at=now + REFUSED_CHECK_SECONDS), True)
    if health.reason == FAILING:
        if look is Look.ACCEPTED:  # how often it failed is kept until a paid call is answered
            return Ruling(replace(health, check_at=None), False)
        return Ruling(_opened(health, health.count, now), False)
    if look is Look.UNDECIDED:
        return Ruling(replace(health, check_at=now + UNDECIDED_SECONDS), False)
    if health.reads_until > now:  # the rest of a refusal stands, whatever the list says before its end
        return Ruling(replace(health, check_at=health.reads_until), False)
    if health.paid_until > now:  # only an empty account rests that long
        return Ruling(Health(paid_until=health.paid_until, reason=OUT_OF_CREDITS, count=1), False)
    return Ruling(HEALTHY, False)


def _off(health: Health, now: float) -> Health:
    again = now + REFUSED_CHECK_SECONDS
    return replace(
        health,
        paid_until=max(health.paid_until, again),
        reads_until=max(health.reads_until, again),
        reason=REFUSED,
        count=1,
        check_at=again,
        trial_until=0.0,
    )
