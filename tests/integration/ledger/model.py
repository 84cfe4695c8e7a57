"""What the ledger must do, in a few lines: holds and quotas are all it knows, counters are sums over them. Pure.

A key is named by its line, which is a number: keys that replace each other count on the same quotas.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from gateway.credits.aging import Aged, Ages, settled_at_quote
from gateway.credits.quotas import Period
from gateway.credits.terms import Conclusion

Scope = tuple[int | None, Period]  # which line's quota, None for the team's
TAKEN = Conclusion(state="unknown", reason="task id already recorded")
_OLD = Conclusion(state="unknown")


@dataclass(eq=False)
class Hold:
    id: UUID
    line: int
    key: str
    quote: int
    placed_at: datetime
    state: str = "held"
    settled: int = 0
    unknown_at: datetime | None = None
    task: str | None = None  # the last one it was bound to, another's too

    @property
    def is_open(self) -> bool:
        return self.state in {"held", "unknown"}

    def end(self, word: Conclusion, at: datetime) -> bool:
        """Whether that changed anything: the first end counts."""
        if not self.is_open or self.state == word.state:
            return False
        self.state, self.settled = word.state, word.settled or 0
        self.unknown_at = at if self.state == "unknown" else self.unknown_at
        return True


@dataclass(eq=False)
class Task:
    hold: Hold
    created_at: datetime
    ended: bool = False


@dataclass
class Quota:
    limit: int
    enforce: bool


@dataclass
class Model:
    """One team."""

    zone: str = "UTC"
    holds: list[Hold] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    quotas: dict[Scope, Quota] = field(default_factory=dict)

    def counter(self, scope: Scope, at: datetime) -> tuple[int, int]:
        """(settled, held) of the period that holds an instant."""
        line, period = scope
        first, last = bounds(period, self.zone, at)
        counted = [one for one in self.holds if line in (None, one.line) and first <= one.placed_at < last]
        return sum(one.settled for one in counted), sum(one.quote for one in counted if one.is_open)

    def decide(self, line: int, quote: int, at: datetime) -> tuple[bool, bool, int | None]:
        """Whether a call is admitted, whether a shadow quota would not have, and what is left after it."""
        left: list[int] = []
        refused = shadow = False
        for scope, quota in self.quotas.items():
            if scope[0] in (None, line):
                rest = quota.limit - sum(self.counter(scope, at)) - quote
                refused |= rest < 0 and quota.enforce
                shadow |= rest < 0 and not quota.enforce
                left += [rest] if quota.enforce else []
        return not refused, shadow, min(left, default=None)

    def bind(self, hold: Hold, name: str, at: datetime) -> None:
        hold.task = name
        if self.tasks.setdefault(name, Task(hold, at)).hold is not hold:
            hold.end(TAKEN, at)

    def poll(self, name: str, word: Conclusion | None, at: datetime) -> bool:
        """Whether the task was still running; with a word that ends it, and its hold unless that has ended."""
        task = self.tasks[name]
        if task.ended:
            return False
        if word is not None:
            task.ended = True
            task.hold.end(word, at)
        return True

    def age(self, ages: Ages, at: datetime) -> Aged:
        """Time passed over holds that nobody concludes."""

        def past(since: datetime | None, seconds: float) -> bool:
            return since is not None and since < at - timedelta(seconds=seconds)

        held = [one for one in self.holds if one.state == "held"]
        abandoned = [
            one for one in held if past(one.placed_at, ages.longest_call) and not self._has_own_task(one)
        ]
        endless = [
            one.hold
            for one in self.tasks.values()
            if one.hold.state == "held" and not one.ended and past(one.created_at, ages.task_max_age)
        ]
        late = [
            one
            for one in self.holds
            if one.state == "unknown" and past(one.unknown_at, ages.settle_unknown_after)
        ]
        unknown = sum([one.end(_OLD, at) for one in {*abandoned, *endless}])
        return Aged(unknown, sum([one.end(settled_at_quote(one.quote, None), at) for one in late]))

    def _has_own_task(self, hold: Hold) -> bool:
        return hold.task is not None and self.tasks[hold.task].hold is hold


def bounds(period: str, zone: str, at: datetime) -> tuple[datetime, datetime]:
    """Where the period that holds an instant begins and ends, in zones that never change clocks at midnight."""
    where = ZoneInfo(zone)
    today = at.astimezone(where).date()

    def midnight(day: date) -> datetime:
        return datetime.combine(day, time(), where).astimezone(UTC)

    if period == "total":
        return datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
    if period == "day":
        return midnight(today), midnight(today + timedelta(days=1))
    if period == "week":
        monday = today - timedelta(days=today.weekday())
        return midnight(monday), midnight(monday + timedelta(days=7))
    first = today.replace(day=1)
    return midnight(first), midnight((first + timedelta(days=32)).replace(day=1))
