"""What counters have counted: which calls are on which, how they stood at any moment, and limits that fit to that."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from benchmarks.past.calls import Call
from benchmarks.past.cast import Quota, Span, Team
from gateway.credits.amount import MICRO

LEAST = 100 * MICRO  # of a limit
ROOM = 1.25  # beyond the fullest period, where a quota has room
RAISED = 0.35  # when limits were raised, as a part of the whole time


@dataclass(frozen=True, slots=True)
class Period:
    """A period of a kind in a zone."""

    starts_at: datetime
    ends_at: datetime


Periods = Mapping[tuple[str, str], Sequence[Period]]  # by kind and zone, in order


@dataclass(frozen=True, slots=True)
class Move:
    """What a place or an end adds to a counter at a moment, in micro-credits; `placed` is the call when it is one."""

    at: datetime
    held: int
    settled: int
    placed: Call | None = None


@dataclass(slots=True)
class Counter:
    """A quota in one of its periods; `id` is the row's when it is there."""

    team: Team
    quota: Quota
    period: Period
    moves: list[Move] = field(default_factory=list)
    id: int = 0

    def standing(self, at: datetime) -> tuple[int, int]:
        """Settled and held at a moment."""
        before = [move for move in self.moves if move.at <= at]
        return sum(move.settled for move in before), sum(move.held for move in before)

    @property
    def limit(self) -> int:
        """The quota's when the period ended, or now."""
        changed = self.quota.updated_at
        over = changed is not None and self.period.ends_at <= changed
        return self.quota.earlier if over else self.quota.limit

    @property
    def peak(self) -> int:
        """The most that was settled and held at once."""
        return max((used for used, _ in self._used()), default=0)

    def reached(self, used: int) -> datetime | None:
        """When settled and held first were so much."""
        return next((move.at for sum_, move in self._used() if sum_ >= used), None)

    def refused_by_limit(self) -> Iterator[Call]:
        """The calls for which there was no room."""
        return (
            move.placed for used, move in self._used() if move.placed is not None and used > self.quota.limit
        )

    def _used(self) -> Iterator[tuple[int, Move]]:
        used = 0
        for move in self.moves:
            used += move.held + move.settled
            yield used, move


def counted(teams: Iterable[Team], found: Iterable[Call], periods: Periods) -> list[Counter]:
    """The counters of every period since each quota was made, with what the calls did to them."""
    by_team: dict[str, dict[tuple[str, str | None], list[Counter]]] = {}
    for team in teams:
        for quota in team.quotas:
            kind, line = quota.plan.period, quota.line
            lasting = [one for one in periods[kind, team.plan.zone] if one.ends_at > quota.created_at]
            by_team.setdefault(team.slug, {})[kind, line] = [Counter(team, quota, one) for one in lasting]
    for call in found:
        for (_, line), counters in by_team.get(call.team.slug, {}).items():
            if line in (None, call.key.line):
                place = bisect_right(counters, call.placed_at, key=lambda one: one.period.starts_at) - 1
                counters[place].moves += _moves(call)
    every = [one for lines in by_team.values() for counters in lines.values() for one in counters]
    for counter in every:
        counter.moves.sort(key=lambda move: (move.at, move.held > 0))
    return every


def set_limits(every: Sequence[Counter], span: Span) -> None:
    """Gives each quota a limit by which it is as full as planned, and one it had before: an enforced one was never
    passed."""
    for quota in {id(one.quota): one.quota for one in every}.values():
        mine = [one for one in every if one.quota is quota]
        quota.limit = _limit(mine, span.now)
        if not quota.plan.enforce:
            continue
        fullest = max((one.peak for one in mine[:-1]), default=0)
        quota.updated_at, quota.earlier = span.at(RAISED), quota.limit // 2 // MICRO * MICRO
        young = [one.peak for one in mine if one.period.ends_at <= quota.updated_at]
        if fullest > quota.limit:  # it was lowered when this period began
            quota.updated_at = mine[-1].period.starts_at + timedelta(minutes=1)
            quota.earlier = _round(fullest * ROOM)
        elif max(young, default=0) > quota.earlier:
            quota.updated_at, quota.earlier = None, quota.limit


def _limit(mine: Sequence[Counter], now: datetime) -> int:
    """The limit of a quota with these counters."""
    quota = mine[-1].quota
    standing, used = sum(mine[-1].standing(now)), quota.plan.used
    if used is None:
        wanted = _round(max(one.peak for one in mine) * ROOM)
    elif used < 0.9:
        wanted = _round(max(standing / used, _last_full(mine, now)))
    else:
        wanted = -int(-standing / used // MICRO) * MICRO
    if not quota.plan.enforce:
        return max(wanted, MICRO)
    return max(wanted, LEAST, -(-mine[-1].peak // MICRO) * MICRO)


def mark_shadows(every: Iterable[Counter]) -> None:
    """Flags the calls that a quota would have refused if it was enforced."""
    for counter in every:
        if not counter.quota.plan.enforce:
            for call in counter.refused_by_limit():
                call.flags.insert(0, "shadow_refused")


def _moves(call: Call) -> Iterator[Move]:
    yield Move(call.placed_at, call.quote, 0, call)
    if call.ended_at is not None:
        yield Move(call.ended_at, -call.quote, call.settled or 0)


def _last_full(mine: Sequence[Counter], now: datetime) -> int:
    """What the period before had used, while the current one is too young to say anything."""
    current, elapsed = mine[-1].period, now - mine[-1].period.starts_at
    young = elapsed * 4 < current.ends_at - current.starts_at
    return mine[-2].peak if young and len(mine) > 1 else 0


def _round(micro: float) -> int:
    """Up to two digits, and whole credits."""
    step = MICRO
    while micro > 100 * step:
        step *= 10
    return int(-(-micro // step)) * step


def current(every: Iterable[Counter], now: datetime) -> list[Counter]:
    """The counters of the periods that run now."""
    return [one for one in every if one.period.starts_at <= now < one.period.ends_at]
