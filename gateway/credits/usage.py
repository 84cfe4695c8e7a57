"""What was used, as sums over quarters of an hour: `usage_buckets`, and `usage_days` in place of whole days of them.

Usage is dated by the instant its hold was placed. A range is bounded by instants on a quarter of an hour, or by bare
dates, which mean each team's own days. `requests` got a hold; `failed` of them were released or are unknown.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Select,
    Table,
    cast,
    func,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.credits.amount import to_decimal, to_text
from gateway.credits.rollups import clean_days, gaps
from gateway.db.tables import teams, usage_buckets, usage_days

Dimension = Literal["team", "key", "model", "operation", "day"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
Bound = date | datetime  # a bare date, or an aware instant
MOST_ROWS = 50_000
_QUARTER = timedelta(minutes=15)
_ZONES = timedelta(days=1)  # days begin up to 14 hours before and 12 after the UTC day of the same date


class Sums(NamedTuple):
    """Calls and micro-credits; `shadow_refused` calls went through although a shadow quota had no room."""

    requests: int = 0
    failed: int = 0
    credits: int = 0
    estimated_credits: int = 0
    shadow_refused: int = 0

    def plus(self, other: Sums) -> Sums:
        return Sums(**{name: getattr(self, name) + getattr(other, name) for name in _SUMS})


_SUMS = Sums._fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """From `start`, inclusive, to `end`, exclusive."""

    start: Bound
    end: Bound


class Row(NamedTuple):
    """The sums of one combination; `names` holds the dimensions asked for, in their order."""

    names: dict[str, Any]
    sums: Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Usage of a range by some dimensions; the totals are the sum of the rows, exactly."""

    range: Range
    by: tuple[Dimension, ...]
    rows: tuple[Row, ...]
    totals: Sums


async def statement(
    connection: AsyncConnection,
    which: Range,
    by: Sequence[Dimension],
    team_id: UUID | None = None,
    *,
    only_keys: Sequence[str] | None = None,
) -> Statement:
    """The usage in the range, of one team or of all, and of these keys alone, by their ids, if any are given.

    GatewayError 400 when it has more than MOST_ROWS rows.
    """
    found = (await connection.execute(_summed(which, by, team_id, only_keys))).all()
    if len(found) > MOST_ROWS:
        raise errors.bad_request(
            f"by: more than {MOST_ROWS} rows; ask for a shorter range or fewer dimensions", "invalid_fields"
        )
    names = [column for name in by for column in (("team", "team_id") if name == "team" else (name,))]
    rows = tuple(_row(names, row) for row in found)
    totals = Sums(**{name: sum(getattr(row.sums, name) for row in rows) for name in _SUMS})
    return Statement(range=which, by=tuple(by), rows=rows, totals=totals)


def _summed(
    which: Range, by: Sequence[Dimension], team_id: UUID | None, only_keys: Sequence[str] | None
) -> Select[Any]:
    """Summed first and named after that: to join every bucket with its team takes five times as long."""
    if only_keys is None:
        kept = rows_within(which, by, team_id).subquery()
    else:
        kept = _of_buckets(which, by, team_id).where(usage_buckets.c.key_id.in_(only_keys)).subquery()
    grouped = [kept.c[_kept(name)] for name in by]
    sums = [cast(func.sum(kept.c[name]), BigInteger).label(name) for name in _SUMS]
    found = select(*grouped, *sums).group_by(*grouped).subquery()
    # Teams are put in order before: numbers sort faster than tens of thousands of slugs.
    team = select(
        teams.c.id, teams.c.slug, func.row_number().over(order_by=teams.c.slug).label("place")
    ).subquery()
    columns: list[ColumnElement[Any]] = []
    for name in by:
        columns += [team.c.slug.label("team"), found.c.team_id] if name == "team" else [found.c[name]]
    query = select(*columns, *(found.c[name] for name in _SUMS))
    if "team" in by:
        query = query.join_from(found, team, team.c.id == found.c.team_id)
    order = [team.c.place if name == "team" else found.c[name] for name in by]
    return query.order_by(*order).limit(MOST_ROWS + 1)


def rows_within(
    which: Range, by: Sequence[Dimension], team_id: UUID | None
) -> Select[Any] | CompoundSelect[Any]:
    """The rows that hold the range's usage, to be summed: the dimensions (teams as `team_id`) and the sums."""
    return _of_buckets(which, by, team_id) if "key" in by else _of_days_and_buckets(which, by, team_id)


def bound(text: str) -> Bound:
    """A bare date, or an instant on a quarter of an hour, in UTC; raises ValueError saying what is wrong."""
    wanted = "must be a date such as 2026-03-01, or a time with its zone such as 2026-03-01T00:00:00Z"
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            day = date.fromisoformat(text)
            if 1970 <= day.year <= 2200:
                return day
            raise ValueError(wanted)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or not 1970 <= moment.year <= 2200:
            raise ValueError(wanted)
        moment = moment.astimezone(UTC)
    except ValueError:
        raise ValueError(wanted) from None
    if moment != quarter(moment):
        raise ValueError("must fall on a quarter of an hour: usage is kept by the quarter")
    return moment


def dimensions(text: str) -> tuple[Dimension, ...]:
    """`team,model` as dimensions in their order, each once; raises ValueError naming those that can be asked for."""
    asked = [part.strip() for part in text.split(",")]
    known: dict[str, Dimension] = {name: name for name in DIMENSIONS}
    if not set(asked) <= set(known):
        raise ValueError(f"must be one or several of {', '.join(DIMENSIONS)}, with commas between them")
    return tuple(dict.fromkeys(known[name] for name in asked))


def range_of(start: Bound | None, end: Bound | None, now: datetime, zone: str = "UTC") -> Range:
    """The range asked for: by default from the beginning of this month in `zone` to the end of this quarter of an hour.

    Raises GatewayError 400 when it ends before it begins.
    """
    if start is None:
        first = now.astimezone(ZoneInfo(zone)).replace(day=1)
        start = datetime.combine(first.date(), time(), ZoneInfo(zone)).astimezone(UTC)
    if end is None:
        end = quarter(now.astimezone(UTC)) + _QUARTER
    if start >= end if type(start) is type(end) else _day(start) - timedelta(days=1) > _day(end):
        raise errors.bad_request(
            f"to: must be after from ({bound_text(start)} to {bound_text(end)})", "invalid_fields"
        )
    return Range(start=start, end=end)


def quarter(moment: datetime) -> datetime:
    """The beginning of the quarter of an hour a moment falls into."""
    return moment.replace(minute=moment.minute // 15 * 15, second=0, microsecond=0)


def bound_text(value: Bound) -> str:
    """A bound as it is answered: `2026-03-01` or `2026-03-01T00:00:00Z`."""
    return value.isoformat().replace("+00:00", "Z")


def document(found: Statement) -> dict[str, Any]:
    """The statement as it is answered in JSON, credits as exact decimals."""
    return {
        "from": bound_text(found.range.start),
        "to": bound_text(found.range.end),
        "by": list(found.by),
        "data": [row.names | amounts(row.sums) for row in found.rows],
        "totals": amounts(found.totals),
    }


def amounts(sums: Sums) -> dict[str, Any]:
    """The sums by name, credits as exact decimals."""
    plain = {name: getattr(sums, name) for name in _SUMS}
    return plain | {name: to_decimal(plain[name]) for name in ("credits", "estimated_credits")}


def csv_text(found: Statement) -> str:
    """The statement as CSV with a line of names first and the totals last; credits as exact decimal text."""
    names = [column for name in found.by for column in (("team", "team_id") if name == "team" else (name,))]
    lines: list[list[object]] = [[*names, *_SUMS]]
    lines += [[*(inert(str(row.names[name])) for name in names), *_numbers(row.sums)] for row in found.rows]
    lines.append(["total", *("" for _ in names[1:]), *_numbers(found.totals)])
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def inert(text: str) -> str:
    """A text that no spreadsheet takes for a formula: clients choose the names of models."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _numbers(sums: Sums) -> list[object]:
    return [
        to_text(getattr(sums, name)) if name.endswith("credits") else getattr(sums, name) for name in _SUMS
    ]


def _of_buckets(which: Range, by: Sequence[Dimension], team_id: UUID | None) -> Select[Any]:
    return _rows(usage_buckets, by, team_id).where(*_between(which), *_days(usage_buckets, which))


def _of_days_and_buckets(which: Range, by: Sequence[Dimension], team_id: UUID | None) -> CompoundSelect[Any]:
    """The same rows, those of whole UTC days as far as they are summed already; all in one snapshot."""
    start, end = _instants(which)
    first = (start + timedelta(days=1) - timedelta(microseconds=1)).date()
    clean = clean_days(first, end.date())
    utc_day = usage_days.c.utc_day
    days = _rows(usage_days, by, team_id).join(clean, clean.c.utc_day == utc_day)
    days = days.where(utc_day >= first, utc_day < end.date())  # again, where the planner sees it
    rest_of = gaps(clean, start, end)
    begins = usage_buckets.c.starts_at
    # A gap at a time, by index: joined at will, the planner takes the gaps for the whole table.
    within = _rows(usage_buckets, by, team_id).where(begins >= rest_of.c.start, begins < rest_of.c.end)
    rest = within.where(*_days(usage_buckets, which)).offset(0).lateral()
    return union_all(
        days.where(*_days(usage_days, which)), select(rest).select_from(rest_of.join(rest, true()))
    )


def _rows(table: Table, by: Sequence[Dimension], team_id: UUID | None) -> Select[Any]:
    """Rows with what is asked for; `key_id` is called `key`."""
    columns = [table.c.key_id.label("key") if name == "key" else table.c[_kept(name)] for name in by]
    query = select(*columns, *(table.c[name] for name in _SUMS))
    return query if team_id is None else query.where(table.c.team_id == team_id)


def _kept(name: Dimension) -> str:
    return "team_id" if name == "team" else name


def _row(names: Sequence[str], found: Sequence[Any]) -> Row:
    """Names first, sums in their order after them: there may be tens of thousands of rows."""
    return Row(dict(zip(names, found, strict=False)), Sums._make(found[len(names) :]))


def _between(which: Range) -> list[ColumnElement[bool]]:
    start, end = _instants(which)
    return [usage_buckets.c.starts_at >= start, usage_buckets.c.starts_at < end]


def _days(table: Table, which: Range) -> list[ColumnElement[bool]]:
    """What is left to ask of the teams' own days."""
    after = [] if isinstance(which.start, datetime) else [table.c.day >= which.start]
    before = [] if isinstance(which.end, datetime) else [table.c.day < which.end]
    return [*after, *before]


def _instants(which: Range) -> tuple[datetime, datetime]:
    """Between which instants the range lies: for dates, whole UTC days that have the day of every zone in them."""
    start, end = which.start, which.end
    return (
        start if isinstance(start, datetime) else _midnight(start) - _ZONES,
        end if isinstance(end, datetime) else _midnight(end) + _ZONES,
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _day(value: Bound) -> date:
    return value.date() if isinstance(value, datetime) else value
