"""The pages of a team: what its keys have spent and may still spend, what is running, and how to connect.

They show what a key of the team may know anyway (`account.py`), read by index, and nothing of upstream keys or of other
teams. There is nothing to change on them.
"""

from __future__ import annotations

import calendar
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.access import team_keys
from gateway.access.principal import Principal
from gateway.credits import holds, standing, usage
from gateway.credits.amount import to_decimal
from gateway.credits.holds import HoldFilter, HoldState
from gateway.credits.usage import Range
from gateway.db.engine import Database
from gateway.db.paging import Page, PageOf, checked_cursor
from gateway.endpoints.account import allowed_models
from gateway.endpoints.team_files import Download, requests_file, tasks_file, usage_file
from gateway.pages import snippets, spending
from gateway.pages.chart import projected
from gateway.pages.rendering import headers
from gateway.pages.spending import Wanted
from gateway.pages.team_visits import TeamVisits
from gateway.pages.view import View
from gateway.proxy.exchange import exchange_of
from gateway.proxy.relay import reply
from gateway.tasks import listing as tasks
from gateway.tasks.listing import TaskFilter

ROWS = 50
RUNNING = 10
LATEST = 8
STATES: tuple[HoldState, ...] = ("held", "settled", "released", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamCall:
    """One request of a signed-in browser: whose, and for what. `origin` is where it reaches the gateway."""

    database: Database
    who: Principal
    view: View
    query: Mapping[str, str]
    origin: str


@dataclass(frozen=True, slots=True)
class Html:
    """A page: its template below `team/` and the values in it."""

    template: str
    values: Mapping[str, Any]


Handler = Callable[[TeamCall], Awaitable[Html | Download]]


class TeamPage:
    """One page behind the team's door, which has put the principal into the exchange."""

    def __init__(self, visits: TeamVisits, database: Database, handler: Handler) -> None:
        self._visits = visits
        self._database = database
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, who = Request(scope, receive), exchange_of(scope).principal
        if who is None:
            raise errors.internal_error()
        view = self._visits.view(request, who)
        call = TeamCall(
            database=self._database,
            who=who,
            view=view,
            query={name: value for name, value in request.query_params.items() if value != ""},
            origin=self._visits.browsers.origin(request),
        )
        answer = await self._handler(call)
        if isinstance(answer, Download):
            found, body = answer.headers(), answer.text.encode()
        else:
            found, body = headers(), self._visits.render(answer.template, view, who=who, **answer.values)
        await reply(send, 200, found, b"" if request.method == "HEAD" else body)


async def home(call: TeamCall) -> Html | Download:
    """What was spent, what is left, what runs, what was asked last, and what this key may do."""
    if call.view.fragment:
        return await _running(call)
    who, now = call.who, call.view.now.astimezone(ZoneInfo(call.who.time_zone))
    which = _wanted(call, now)
    async with call.database.autocommit() as connection:
        if call.query.get("format") == "csv":
            return await usage_file(connection, which, who, now)
        quotas = await standing.of_key(connection, who.team_id, who.key_id)
        tightest = min((one for one in quotas if one.enforce), key=lambda one: one.remaining, default=None)
        values = {
            "which": which,
            "chart": await spending.chart(connection, which, call.view.text, who.team_id),
            "month": await _month(connection, who, now),
            "quotas": quotas,
            "tightest": tightest,
            "left": None if tightest is None else to_decimal(tightest.remaining),
            "running": await _open_tasks(connection, who),
            "requests": await holds.page(connection, HoldFilter(team_id=who.team_id), PageOf(LATEST)),
            "key": await team_keys.find(connection, who.key_id),
            "models": allowed_models(who),
        }
    return Html("home.html", values)


async def own_tasks(call: TeamCall) -> Html | Download:
    """The team's tasks, newest first; those that run are looked at again every few seconds."""
    narrow = TaskFilter(
        team_id=call.who.team_id, ended={"running": False, "ended": True}.get(call.query.get("state", ""))
    )
    async with call.database.autocommit() as connection:
        if call.query.get("format") == "csv":
            return await tasks_file(connection, narrow, call.view)
        found = await tasks.page(connection, narrow, _page_of(call))
        names = await team_keys.by_ids(connection, {task.key_id for task in found.items})
    values = {"tasks": found.items, "keys": names, "listing": _listing(found), "narrowed": narrow.ended}
    return Html("task_rows.html" if call.view.fragment else "tasks.html", values)


async def own_requests(call: TeamCall) -> Html | Download:
    """The team's paid calls, newest first: what was quoted, and what was charged."""
    state = next((one for one in STATES if one == call.query.get("state")), None)
    model = call.query.get("model")
    if model is not None and not model.isprintable():
        raise errors.bad_request("model: must be text without control characters", "invalid_fields")
    narrow = HoldFilter(team_id=call.who.team_id, state=state, model=model)
    async with call.database.autocommit() as connection:
        if call.query.get("format") == "csv":
            return await requests_file(connection, narrow, call.view)
        found = await holds.page(connection, narrow, _page_of(call))
        names = await team_keys.by_ids(connection, {hold.key_id for hold in found.items})
    values = {"requests": found.items, "keys": names, "listing": _listing(found), "states": STATES}
    return Html("requests.html", {**values, "state": state, "model": narrow.model})


async def connect(call: TeamCall) -> Html:
    """Code to copy, with this gateway's address; of the key only its beginning is known here."""
    language = snippets.named(call.query.get("lang"))
    values = {
        "language": language,
        "names": snippets.NAMES,
        "needs": snippets.NEEDS.get(language),
        "code": snippets.snippets(language, call.origin, f"pxg_{call.who.key_id}_…"),
    }
    return Html("connect.html", values)


async def _running(call: TeamCall) -> Html:
    """The part of the first page that changes by itself."""
    async with call.database.autocommit() as connection:
        return Html("running.html", {"running": await _open_tasks(connection, call.who)})


async def _open_tasks(connection: AsyncConnection, who: Principal) -> Page[tasks.ListedTask]:
    return await tasks.page(connection, TaskFilter(team_id=who.team_id, ended=False), PageOf(RUNNING))


async def _month(connection: AsyncConnection, who: Principal, now: datetime) -> dict[str, Any]:
    """This month in the team's zone."""
    today = now.date()
    span = Range(start=today.replace(day=1), end=today + timedelta(days=1))
    found = await usage.statement(connection, span, ["day"], who.team_id)
    spent = {row.names["day"]: row.sums.credits for row in found.rows}
    ahead = projected(spent, today, calendar.monthrange(today.year, today.month)[1])
    return {
        "today": to_decimal(spent.get(today, 0)),
        "so_far": to_decimal(found.totals.credits),
        "requests": found.totals.requests,
        "failed": found.totals.failed,
        "projected": None if ahead is None else to_decimal(ahead),
    }


def _wanted(call: TeamCall, now: datetime) -> Wanted:
    """Range and grouping of the address; a team alone is not grouped by teams."""
    query = {name: value for name, value in call.query.items() if (name, value) != ("by", "team")}
    return spending.wanted(query, now, "model", ZoneInfo(call.who.time_zone))


def _page_of(call: TeamCall) -> PageOf:
    """Where the list goes on; 400 for what is no position in one."""
    after = call.query.get("after")
    try:
        return PageOf(ROWS, None if after is None else checked_cursor(after))
    except ValueError as error:
        raise errors.bad_request(f"after: {error}", "invalid_fields") from None


def _listing(found: Page[Any]) -> dict[str, Any]:
    return {"has_more": found.next is not None, "next": found.next}
