"""What was spent over a range, by day and by the largest teams, models or keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access import team_keys
from gateway.credits import usage
from gateway.credits.usage import Dimension, Range, Row
from gateway.pages.chart import LAYERS, Chart, days_between, stacked
from gateway.pages.display import Text

Grouping = Literal["team", "model", "key"]
Links = Callable[[Grouping, str], str]  # the page of a team by its slug, of a model, or of a key by its id
GROUPINGS: tuple[Grouping, ...] = ("team", "model", "key")
LONGEST = 366
LATEST_ZONE = timedelta(hours=14)
RANGES = {"7d": 7, "30d": 30, "90d": 90}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which days and how they are grouped, as the address says; what it says wrongly is as if it said nothing."""

    start: date
    end: date  # exclusive
    range: str  # the name of the range, `custom` for dates of one's own
    by: Grouping
    cumulative: bool
    today: date

    def days(self, spent: Mapping[date, int]) -> list[date]:
        """The days to show. Where teams are ahead of UTC, tomorrow has begun: it is shown once something was spent."""
        found = days_between(self.start, self.end)
        while found and found[-1] > self.today and not spent.get(found[-1]):
            found.pop()
        return found


def wanted(query: Mapping[str, str], now: datetime, by: Grouping = "team", zone: tzinfo = UTC) -> Wanted:
    """The range and grouping in a page's address; by default this month, as it is in `zone`.

    In UTC, which stands for all teams, the last day is that of the teams whose day is the latest.
    """
    today = now.astimezone(zone).date()
    latest = (now + LATEST_ZONE).astimezone(UTC).date() if zone is UTC else today
    tomorrow = latest + timedelta(days=1)
    name = query.get("range", "month")
    start, end = today.replace(day=1), tomorrow
    if name in RANGES:
        start = today - timedelta(days=RANGES[name] - 1)
    elif "from" in query or "to" in query:
        name = "custom"
        start, end = _day(query.get("from")) or start, _day(query.get("to")) or tomorrow
        if not start < end <= start + timedelta(days=LONGEST):
            start, end = max(end - timedelta(days=30), date.min), end
    else:
        name = "month"
    grouping = next((one for one in GROUPINGS if one == query.get("by")), by)
    return Wanted(
        start=start,
        end=end,
        range=name,
        by=grouping,
        cumulative=query.get("cumulative") == "1",
        today=today,
    )


async def chart(
    connection: AsyncConnection,
    which: Wanted,
    text: Text,
    team: UUID | None = None,
    links: Links | None = None,
    sums: Mapping[date, int] | None = None,
) -> Chart:
    """The stacked days: three reads of usage, and one of the keys' names where keys are the layers.

    `sums` is what was spent each day, in micro-credits, where the caller has read it already.
    """
    span = Range(start=which.start, end=which.end)
    totals = await usage.statement(connection, span, [which.by], team)
    largest = sorted(totals.rows, key=lambda row: row.sums.credits, reverse=True)[:LAYERS]
    if sums is None:
        found_days = await usage.statement(connection, span, ["day"], team)
        sums = {row.names["day"]: row.sums.credits for row in found_days.rows}
    days = which.days(sums)
    names = [_ident(row, which.by) for row in largest if row.sums.credits]
    if not names:
        return stacked(days, sums, [], text("Other"))
    each = await usage.statement(connection, span, [which.by, "day"], team, only=(which.by, names))
    found: dict[object, dict[date, int]] = {}
    for row in each.rows:
        found.setdefault(_ident(row, which.by), {})[row.names["day"]] = row.sums.credits
    called = await _called(connection, largest, which.by, of_one_team=team is not None)
    top = [(called[name], found.get(name, {})) for name in names]
    pages: dict[str, str] = {}
    if links is not None:
        slugs = {row.names["team_id"]: row.names["team"] for row in largest} if which.by == "team" else {}
        pages = {called[name]: links(which.by, slugs.get(name, str(name))) for name in names}
    return stacked(days, sums, top, text("Other"), pages)


def _ident(row: Row, by: Dimension) -> object:
    return row.names["team_id"] if by == "team" else row.names[by]


async def _called(
    connection: AsyncConnection, rows: list[Row], by: Grouping, *, of_one_team: bool
) -> dict[object, str]:
    """What each row is called; keys of one team may share a name, so their last four go with it."""
    if by == "team":
        return {row.names["team_id"]: row.names["team"] for row in rows}
    if by == "model":
        return {row.names["model"]: row.names["model"] for row in rows}
    keys = await team_keys.by_ids(connection, {row.names["key"] for row in rows})
    if of_one_team:
        return {key.id: f"{key.name} …{key.last4}" for key in keys.values()}
    return {key.id: f"{key.team} / {key.name} …{key.last4}" for key in keys.values()}


def _day(text: str | None) -> date | None:
    try:
        found = date.fromisoformat(text or "")
    except ValueError:
        return None
    return found if 1970 <= found.year <= 2200 else None
