"""Usage: what was spent in a range of days, by any of five things, with totals that are the ledger's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from decimal import Decimal
from typing import Any

from msgspec import UNSET

from gateway.access import team_keys, teams
from gateway.admin.api.answers import CsvAnswer
from gateway.admin.api.credit_answers import UsageAnswer, UsageRowAnswer
from gateway.admin.pages import spending
from gateway.admin.pages.given import NONE, Problems, problems_of
from gateway.admin.pages.page import Answer, Download, Html, PageCall
from gateway.credits.usage import DIMENSIONS, Dimension
from gateway.errors import GatewayError
from gateway.pages.spending import LATEST_ZONE, LONGEST, RANGES, Wanted, next_month

SHOWN = 500
NAMED = (*RANGES, "month", "last-month")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which usage the address asks for; the bounds are as they were typed when they are one's own."""

    range: str
    start: str
    end: str
    by: tuple[Dimension, ...]
    team: str

    @property
    def query(self) -> dict[str, str]:
        """The same for the admin API; empty ones are left to it."""
        given = {"from": self.start, "to": self.end, "by": ",".join(self.by), "team": self.team}
        return {name: value for name, value in given.items() if value}


async def show(call: PageCall) -> Answer:
    now = call.view.now.astimezone(UTC)
    asked = asked_for(call.query, now.date(), (now + LATEST_ZONE).date())
    try:
        if call.query.get("format") == "csv":
            file: CsvAnswer = await call.ask("/usage", {**asked.query, "format": "csv"})
            return Download(file.name, file.text)
        found: UsageAnswer = await call.ask("/usage", asked.query)
    except GatewayError as error:
        return Html(template="usage.html", values=_values(asked, None, _problems(error)), status=400)
    rows = shown(found)
    values = _values(asked, found, NONE) | {
        "rows": rows,
        "keys": await _keys(call, rows) if "key" in asked.by else {},
    }
    return Html(template="usage.html", values=values | await _chart(call, asked))


def asked_for(query: Mapping[str, str], today: date, latest: date | None = None) -> Asked:
    """Range, groups and team of an address; groups come as `by=team,model` or as ticks `by_team`, `by_model`.

    `latest` is the day of the teams that are furthest ahead of UTC: ranges up to now end with it.
    """
    listed = query.get("by", "").split(",")
    by = tuple(one for one in DIMENSIONS if f"by_{one}" in query or one in listed) or ("team",)
    name = query.get("range", "custom" if "from" in query or "to" in query else "month")
    first, beyond = today.replace(day=1), (latest or today) + timedelta(days=1)
    start, end = first.isoformat(), beyond.isoformat()
    if name in RANGES:
        start = (today - timedelta(days=RANGES[name] - 1)).isoformat()
    elif name == "last-month":
        start, end = (first - timedelta(days=1)).replace(day=1).isoformat(), first.isoformat()
    elif name == "custom":
        start, end = query.get("from", start), query.get("to", end)
    else:
        name, end = "month", min(beyond, next_month(today)).isoformat()
    return Asked(range=name, start=start, end=end, by=by, team=query.get("team", ""))


def shown(found: UsageAnswer) -> Sequence[UsageRowAnswer]:
    """The rows of the page: all of them day by day, else the dearest first; of many, the dearest SHOWN."""
    if "day" in found.by and len(found.data) <= SHOWN:
        return found.data
    return sorted(found.data, key=lambda row: row.credits, reverse=True)[:SHOWN]


def _values(asked: Asked, found: UsageAnswer | None, problems: Problems) -> dict[str, Any]:
    return {
        "asked": asked,
        "found": found,
        "rows": (),
        "keys": {},
        "share": Decimal(0)
        if found is None
        else _share(found.totals.estimated_credits, found.totals.credits),
        "dimensions": DIMENSIONS,
        "most": SHOWN,
        "problems": problems,
        "chart": None,
        "which": None,
    }


def _share(part: Decimal, whole: Decimal) -> Decimal:
    return part / whole if whole else Decimal(0)


async def _keys(call: PageCall, rows: Sequence[UsageRowAnswer]) -> Mapping[str, team_keys.TeamKey]:
    wanted = {row.key for row in rows if row.key is not UNSET}
    async with call.dashboard.api.database.autocommit() as connection:
        return await team_keys.by_ids(connection, wanted)


async def _chart(call: PageCall, asked: Asked) -> dict[str, Any]:
    """The days over the table, unless the table has the days itself or there are too many."""
    which = _wanted(asked, cumulative=call.query.get("cumulative") == "1")
    if which is None:
        return {}
    async with call.dashboard.api.database.autocommit() as connection:
        team = await teams.find(connection, asked.team) if asked.team else None
        chart = await spending.chart(connection, which, call.text, team.id if team else None)
    return {"chart": chart, "which": which}


def _wanted(asked: Asked, *, cumulative: bool) -> Wanted | None:
    try:
        start, end = date.fromisoformat(asked.start), date.fromisoformat(asked.end)
    except ValueError:  # instants
        return None
    if "day" in asked.by or not start < end <= start + timedelta(days=LONGEST):
        return None
    by = next((one for one in spending.GROUPINGS if one in asked.by), "model" if asked.team else "team")
    return Wanted(start=start, end=end, range=asked.range, by=by, cumulative=cumulative, today=end)


def _problems(error: GatewayError) -> Problems:
    if error.status == 404:
        return Problems({"team": error.message})
    return problems_of(error, ("from", "to", "by", "team"))
