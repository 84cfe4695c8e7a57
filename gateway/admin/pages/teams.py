"""Teams: the list, a new one, and a team's page with its quotas, keys, spending and latest requests."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from gateway.admin.api.answers import QuotaAnswer, TeamAnswer
from gateway.admin.pages import spending, tables
from gateway.admin.pages.given import (
    NONE,
    NOTHING_TYPED,
    Kind,
    Problems,
    Typed,
    body_of,
    confirms,
    problems_of,
)
from gateway.admin.pages.page import Answer, Goto, Html, PageCall
from gateway.credits import standing, usage
from gateway.credits.quotas import PERIODS
from gateway.credits.standing import Standing
from gateway.errors import GatewayError

SETTINGS: dict[str, Kind] = {
    "name": "kept",
    "time_zone": "kept",
    "cost_center": "text",
    "allowed_models": "list",
    "requests_per_minute": "count",
    "max_in_flight": "count",
}
NEW_KEY: dict[str, Kind] = {
    "name": "kept",
    "expires_at": "text",
    "allowed_models": "list",
    "allowed_addresses": "list",
    "requests_per_minute": "count",
    "max_in_flight": "count",
}
LATEST = 8


async def listing(call: PageCall) -> Answer:
    query = {name: call.query[name] for name in ("after",) if name in call.query}
    if call.query.get("format") == "csv":
        return await tables.download(call, "teams", "/teams", {}, _COLUMNS)
    month = spending.this_month(call.view.now)
    async with call.dashboard.api.database.autocommit() as connection:
        found = await usage.statement(connection, month, ["team"])
    spent = {row.names["team_id"]: row.sums.credits for row in found.rows}
    return Html(template="teams.html", values={"teams": await call.ask("/teams", query), "spent": spent})


async def new(_: PageCall) -> Html:
    return _new(NOTHING_TYPED, NONE)


async def create(call: PageCall) -> Answer:
    form = call.form
    body = body_of(form, {**SETTINGS, "slug": "kept"})
    if form.get("kind") == "unlimited":
        body["unlimited"] = True
    else:
        body["quota"] = body_of(form, {"period": "text", "limit": "credits"})
    try:
        team = await call.change("POST", "/teams", body)
    except GatewayError as error:
        return _new(Typed(form), problems_of(error, [*SETTINGS, "slug", "period", "limit"]))
    return Goto(f"/admin/teams/{team.slug}", done="team-created")


async def show(call: PageCall) -> Html:
    return await page(call)


async def update(call: PageCall) -> Answer:
    kinds: dict[str, Kind] = {**SETTINGS, "slug": "kept", "unlimited": "tick"}
    try:
        team = await call.change(
            "PATCH", "/teams/{team}", body_of(call.form, kinds), team=call.params["team"]
        )
    except GatewayError as error:
        return await page(call, "settings", problems_of(error, kinds))
    return Goto(f"/admin/teams/{team.slug}", done="team-updated")


async def put_quota(call: PageCall) -> Answer:
    kinds: dict[str, Kind] = {"limit": "credits", "enforce": "tick"}
    period = call.form.get("period", "")
    try:
        body = body_of(call.form, kinds)
        await call.change(
            "PUT", "/teams/{team}/quotas/{period}", body, period=period, team=call.params["team"]
        )
    except GatewayError as error:
        return await page(call, f"quota-{period}", problems_of(error, [*kinds, "period"]))
    return Goto(f"/admin/teams/{call.params['team']}", done="quota-set")


async def remove_quota(call: PageCall) -> Answer:
    period = call.form.get("period", "")
    if not confirms(call.form, period):
        said = call.text("That is not its name; nothing was changed.")
        return await page(call, f"quota-{period}", Problems(others=(said,)))
    try:
        await call.change("DELETE", "/teams/{team}/quotas/{period}", period=period, team=call.params["team"])
    except GatewayError as error:
        return await page(call, f"quota-{period}", problems_of(error, ["period"]))
    return Goto(f"/admin/teams/{call.params['team']}", done="quota-removed")


async def issue_key(call: PageCall) -> Answer:
    """The new key's text is in this answer and nowhere else."""
    try:
        key = await call.change(
            "POST", "/teams/{team}/keys", body_of(call.form, NEW_KEY), team=call.params["team"]
        )
    except GatewayError as error:
        return await page(call, "key", problems_of(error, NEW_KEY))
    return Html(template="key_issued.html", once=True, values={"key": key, "origin": call.origin})


async def confirm_suspend(call: PageCall) -> Html:
    return Html(
        template="team_suspend.html",
        values={"team": await call.ask("/teams/{team}", team=call.params["team"])},
    )


async def suspend(call: PageCall) -> Answer:
    team: TeamAnswer = await call.ask("/teams/{team}", team=call.params["team"])
    if not confirms(call.form, team.slug):
        return Html(template="team_suspend.html", values={"team": team, "wrong": True}, status=400)
    await call.change("POST", "/teams/{team}/suspend", team=call.params["team"])
    return Goto(f"/admin/teams/{team.slug}", done="team-suspended")


async def resume(call: PageCall) -> Answer:
    team = await call.change("POST", "/teams/{team}/resume", team=call.params["team"])
    return Goto(f"/admin/teams/{team.slug}", done="team-resumed")


async def page(call: PageCall, wrong: str = "", problems: Problems = NONE) -> Html:
    """A team's page; `wrong` names the form that was refused and is shown again as it was typed."""
    team: TeamAnswer = await call.ask("/teams/{team}", team=call.params["team"])
    keys = await call.ask("/teams/{team}/keys", {"limit": 50}, team=call.params["team"])
    requests = await call.ask("/requests", {"team": team.slug, "limit": LATEST})
    changes = await call.ask("/audit", {"team": team.slug, "limit": 1})
    which = spending.wanted(call.query, call.view.now, "model")
    async with call.dashboard.api.database.autocommit() as connection:
        chart = await spending.chart(connection, which, call.text, team.id)
        standings = await standing.of_team(connection, team.id)
    missing = [name for name in PERIODS if name not in {quota.period for quota in team.quotas}]
    values: dict[str, Any] = {
        "team": team,
        "keys": keys,
        "requests": requests,
        "changes": changes.data,
        "which": which,
        "chart": chart,
        "groupings": [("model", call.text("by model")), ("key", call.text("by key"))],
        "quotas": quotas_of(team.quotas, standings),
        "periods": missing,
        "wrong": wrong,
        "adding": wrong.removeprefix("quota-") in missing,
        "problems": problems,
        "form": Typed(call.form),
    }
    return Html(template="team.html", values=values, status=400 if wrong else 200)


def quotas_of(quotas: list[QuotaAnswer], standings: list[Standing]) -> list[tuple[QuotaAnswer, Standing]]:
    """Each quota with where it stands."""
    found = {one.period: one for one in standings}
    return [(quota, found[quota.period]) for quota in quotas if quota.period in found]


def _new(form: Any, problems: Problems) -> Html:
    values = {"form": form, "problems": problems}
    return Html(template="team_new.html", values=values, status=200 if problems is NONE else 400)


def _limit(team: TeamAnswer, period: str) -> Decimal | None:
    return next((quota.limit for quota in team.quotas if quota.period == period), None)


_COLUMNS: list[tables.Column] = [
    ("team", lambda team: team.slug),
    ("name", lambda team: team.name),
    ("state", lambda team: team.state),
    ("time_zone", lambda team: team.time_zone),
    ("cost_center", lambda team: team.cost_center),
    ("unlimited", lambda team: team.unlimited),
    ("month_limit", lambda team: _limit(team, "month")),
    ("created_at", lambda team: team.created_at),
]
