"""What was spent over a range, by day and by the largest teams, models or keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access import team_keys
from gateway.credits.daily import Daily, Largest, daily
from gateway.credits.usage import Range
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
        end = min(end, next_month(today))
    grouping = next((one for one in GROUPINGS if one == query.get("by")), by)
    return Wanted(
        start=start,
        end=end,
        range=name,
        by=grouping,
        cumulative=query.get("cumulative") == "1",
        today=today,
    )


def this_month(now: datetime) -> Range:
    """This month in UTC, to the end of the day of the teams whose day is the latest, each day being a team's own."""
    today, latest = now.astimezone(UTC).date(), (now + LATEST_ZONE).astimezone(UTC).date()
    return Range(start=today.replace(day=1), end=min(latest + timedelta(days=1), next_month(today)))


def next_month(day: date) -> date:
    """The first day of the month after a day's."""
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


async def chart(
    connection: AsyncConnection,
    which: Wanted,
    text: Text,
    team: UUID | None = None,
    links: Links | None = None,
) -> Chart:
    """The stacked days: one read of usage, and one of the keys' names where keys are the layers."""
    span = Range(start=which.start, end=which.end)
    found = await daily(connection, span, which.by, LAYERS, team_id=team)
    return await drawn(connection, which, found, text, links, of_one_team=team is not None)


async def drawn(
    connection: AsyncConnection,
    which: Wanted,
    found: Daily,
    text: Text,
    links: Links | None = None,
    *,
    of_one_team: bool = False,
) -> Chart:
    """The chart of days that were read already, of which there may be more than it shows."""
    sums = {day: one.credits for day, one in found.days.items()}
    called = await _called(connection, found.largest, which.by, of_one_team=of_one_team)
    return stacked(
        which.days(sums),
        sums,
        [(called.get(one.name, one.name), one.credits) for one in found.largest],
        text("Other"),
        [None if links is None else links(which.by, one.name) for one in found.largest],
    )


async def _called(
    connection: AsyncConnection, found: Sequence[Largest], by: Grouping, *, of_one_team: bool
) -> dict[str, str]:
    """What keys are called; those of one team may share a name, so their last four go with it."""
    if by != "key":
        return {}
    keys = (await team_keys.by_ids(connection, {one.name for one in found})).values()
    return {key.id: f"{'' if of_one_team else f'{key.team} / '}{key.name} …{key.last4}" for key in keys}


def _day(text: str | None) -> date | None:
    try:
        found = date.fromisoformat(text or "")
    except ValueError:
        return None
    return found if 1970 <= found.year <= 2200 else None
