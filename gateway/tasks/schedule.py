"""When a running task is read next. Pure; all times in seconds.

Contract, section 5: a finished task settles within 30 s of its end while open tasks are at most 25 × reads a second ×
keys. So no running task waits longer than `LONGEST` for its next read; within that, reads are rare before a model's
usual end, frequent around it, and ever rarer after it. More tasks than the reads allow for stretch every interval
by the same factor.
"""

from __future__ import annotations

from dataclasses import dataclass

SHORTEST, LONGEST = 2.0, 25.0
FREQUENT = 5.0  # the longest interval around the usual end
AFTER_FAILURE = 5.0
TOO_OLD = 600.0  # between reads of a task that should have ended long ago
AROUND = 0.3  # of the usual duration, before and after it: where reads are frequent at least
WEIGHT = 0.2  # of the newest duration in the average


@dataclass(frozen=True, slots=True)
class Usual:
    """How long a model's tasks take: the moving average, and that of the distance from it."""

    seconds: float
    spread: float = 0.0

    @property
    def margin(self) -> float:
        """How far from the average an end is still expected."""
        return max(AROUND * self.seconds, 2 * self.spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is known of a task right after a read: `failed` counts failed reads in a row, this one included."""

    age: float
    usual: Usual | None = None
    failed: int = 0
    stretch: float = 1.0
    max_age: float = 86_400.0


def next_read(task: Progress) -> float:
    """Seconds until the task is read again."""
    if task.age >= task.max_age:
        return max(TOO_OLD, LONGEST * task.stretch)
    wait = _after_failure(task.failed) if task.failed else _while_running(task.age, task.usual)
    return wait * max(1.0, task.stretch)


def _while_running(age: float, usual: Usual | None) -> float:
    if usual is None:
        return _between(SHORTEST, age / 2, LONGEST)
    early, late = usual.seconds - usual.margin, usual.seconds + usual.margin
    if age < early:
        return _between(SHORTEST, early - age, LONGEST)
    around = _between(SHORTEST, usual.seconds / 10, FREQUENT)
    if age < late:
        return around
    return _between(around, (age - usual.seconds) / 2, LONGEST)


def learnt(usual: Usual | None, lasted: float) -> Usual:
    """What is usual after one more task that lasted so long."""
    if usual is None:
        return Usual(lasted)
    off = lasted - usual.seconds
    return Usual(usual.seconds + WEIGHT * off, usual.spread + WEIGHT * (abs(off) - usual.spread))


def _after_failure(failed: int) -> float:
    return min(AFTER_FAILURE * 1.5 ** min(failed - 1, 10), LONGEST)


def stretch_of(open_tasks: int, reads_per_second: float, keys: int) -> float:
    """By how much intervals are longer than promised: 1 while every open task can be read once in `LONGEST`."""
    return max(1.0, open_tasks / (LONGEST * reads_per_second * max(1, keys)))


class Pace:
    """What this process has learnt: how long each model's tasks usually take, how far each account is stretched."""

    def __init__(self, max_age: float = 86_400.0) -> None:
        self._max_age = max_age
        self._usual: dict[str, Usual] = {}
        self._stretch: dict[str, float] = {}

    def usual(self, model: str) -> Usual | None:
        """What is usual of the model's tasks; None before the first has ended."""
        return self._usual.get(model)

    def learn(self, model: str, age: float, unseen: float) -> None:
        """A task has completed: it was `age` old when that was seen, `unseen` after it was last seen running.

        It ended somewhere in between; an end nobody looked for in time says nothing.
        """
        if unseen > LONGEST + AFTER_FAILURE:
            return
        self._usual[model] = learnt(self._usual.get(model), max(0.0, age - unseen / 2))

    def stretch(self, factors: dict[str, float]) -> None:
        """The factor of each account from now on; 1 for those not named."""
        self._stretch = factors

    def next_read(self, model: str, account: str, age: float, failed: int = 0) -> float:
        """Seconds until a task of this age is read again; `failed` reads in a row came before."""
        return next_read(
            Progress(
                age=age,
                usual=self._usual.get(model),
                failed=failed,
                stretch=self._stretch.get(account, 1.0),
                max_age=self._max_age,
            )
        )


def _between(least: float, value: float, most: float) -> float:
    return min(max(least, value), most)
