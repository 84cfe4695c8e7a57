"""Team keys: the keys of all teams, and one key with its quotas, spending and requests."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from gateway.admin.api.answers import KeyAnswer
from gateway.admin.pages import filters, spending, tables
from gateway.admin.pages.given import NONE, Kind, Problems, Typed, body_of, confirms, problems_of
from gateway.admin.pages.page import Answer, Goto, Html, PageCall
from gateway.admin.pages.teams import quotas_of
from gateway.credits import standing, usage
from gateway.credits.quotas import PERIODS
from gateway.errors import GatewayError

FILTERS = ("team", "state")
SETTINGS: dict[str, Kind] = {
    "name": "kept",
    "expires_at": "text",
    "allowed_models": "list",
    "allowed_addresses": "list",
    "requests_per_minute": "count",
    "max_in_flight": "count",
}
QUOTA: dict[str, Kind] = {"limit": "credits", "enforce": "tick"}
LATEST = 8
OVERLAP_HOURS = 24


async def listing(call: PageCall) -> Answer:
    query = filters.narrowed(call.query, FILTERS)
    if call.query.get("format") == "csv":
        return await tables.download(call, "keys", "/keys", query, _COLUMNS)
    problem, found = await filters.page(call, "/keys", query)
    values: dict[str, Any] = {
        "keys": found,
        "narrow": query,
        "problem": problem,
        **await filters.choices(call),
    }
    return Html(template="keys.html", values=values, status=400 if problem else 200)


async def show(call: PageCall) -> Html:
    return await page(call)


async def update(call: PageCall) -> Answer:
    """A time that has passed stays as it is, though it could not be set."""
    key = await _key(call)
    body = body_of(call.form, SETTINGS)
    if key.expires_at is not None and body["expires_at"] == key.expires_at.isoformat():
        del body["expires_at"]
    try:
        await call.change("PATCH", "/keys/{id}", body, id=key.id)
    except GatewayError as error:
        return await page(call, "settings", problems_of(error, SETTINGS))
    return Goto(f"/admin/keys/{key.id}", done="key-updated")


async def put_quota(call: PageCall) -> Answer:
    key, period = call.params["id"], call.form.get("period", "")
    try:
        body = body_of(call.form, QUOTA)
        await call.change("PUT", "/keys/{id}/quotas/{period}", body, id=key, period=period)
    except GatewayError as error:
        return await page(call, f"quota-{period}", problems_of(error, [*QUOTA, "period"]))
    return Goto(f"/admin/keys/{key}", done="quota-set")


async def remove_quota(call: PageCall) -> Answer:
    key, period = call.params["id"], call.form.get("period", "")
    if not confirms(call.form, period):
        said = call.text("That is not its name; nothing was changed.")
        return await page(call, f"quota-{period}", Problems(others=(said,)))
    try:
        await call.change("DELETE", "/keys/{id}/quotas/{period}", id=key, period=period)
    except GatewayError as error:
        return await page(call, f"quota-{period}", problems_of(error, ["period"]))
    return Goto(f"/admin/keys/{key}", done="quota-removed")


async def ask_rotate(call: PageCall) -> Html:
    return _rotating(await _key(call), Typed(), NONE)


async def rotate(call: PageCall) -> Answer:
    """The new key's text is in this answer and nowhere else."""
    key = await _key(call)
    hours = body_of(call.form, {"overlap": "credits"})["overlap"]  # half an hour may be meant
    seconds = OVERLAP_HOURS * 3600 if hours is None else hours * 3600 if isinstance(hours, Decimal) else hours
    try:
        new = await call.change("POST", "/keys/{id}/rotate", {"overlap_seconds": seconds}, id=key.id)
    except GatewayError as error:
        problems = problems_of(error, ["overlap_seconds"])
        if problems.fields:
            wanted = call.text("must be a number of hours, 0 to 720")
            problems = Problems({"overlap": wanted}, problems.others)
        return _rotating(key, Typed(call.form), problems)
    old = await _key(call)
    return Html(
        template="key_rotated.html", once=True, values={"key": new, "old": old, "origin": call.origin}
    )


async def ask_revoke(call: PageCall) -> Html:
    return Html(template="key_revoke.html", values={"key": await _key(call)})


async def revoke(call: PageCall) -> Answer:
    key = await _key(call)
    if not confirms(call.form, key.name):
        return Html(template="key_revoke.html", values={"key": key, "wrong": True}, status=400)
    await call.change("POST", "/keys/{id}/revoke", id=key.id)
    return Goto(f"/admin/keys/{key.id}", done="key-revoked")


async def page(call: PageCall, wrong: str = "", problems: Problems = NONE) -> Html:
    """A key's page; `wrong` names the form that was refused and is shown again as it was typed."""
    key = await _key(call)
    quotas = (await call.ask("/keys/{id}/quotas", id=key.id)).data
    requests = await call.ask("/requests", {"key": key.id, "limit": LATEST})
    changes = await call.ask("/audit", {"subject_type": "key", "subject_id": key.id, "limit": 1})
    month = spending.this_month(call.view.now)
    async with call.dashboard.api.database.autocommit() as connection:
        standings = await standing.of_key(connection, key.team_id, key.id)
        spent = await usage.statement(connection, month, ["key", "model"], key.team_id, only_keys=[key.id])
    missing = [name for name in PERIODS if name not in {quota.period for quota in quotas}]
    values: dict[str, Any] = {
        "key": key,
        "quotas": quotas_of(quotas, [one for one in standings if one.scope == "key"]),
        "above": [one for one in standings if one.scope == "team"],
        "periods": missing,
        "adding": wrong.removeprefix("quota-") in missing,
        "requests": requests,
        "changes": changes.data,
        "spent": sorted(spent.rows, key=lambda row: row.sums.credits, reverse=True),
        "totals": spent.totals,
        "wrong": wrong,
        "problems": problems,
        "form": Typed(call.form),
    }
    return Html(template="key.html", values=values, status=400 if wrong else 200)


async def _key(call: PageCall) -> KeyAnswer:
    found: KeyAnswer = await call.ask("/keys/{id}", id=call.params["id"])
    return found


def _rotating(key: KeyAnswer, form: Typed, problems: Problems) -> Html:
    values = {"key": key, "form": form, "problems": problems, "hours": OVERLAP_HOURS}
    return Html(template="key_rotate.html", values=values, status=200 if problems is NONE else 400)


_COLUMNS: list[tables.Column] = [
    ("id", lambda key: key.id),
    ("team", lambda key: key.team),
    ("name", lambda key: key.name),
    ("state", lambda key: key.state),
    ("last4", lambda key: key.last4),
    ("last_used_at", lambda key: key.last_used_at),
    ("expires_at", lambda key: key.expires_at),
    ("allowed_models", lambda key: key.allowed_models),
    ("allowed_addresses", lambda key: key.allowed_addresses),
    ("requests_per_minute", lambda key: key.requests_per_minute),
    ("max_in_flight", lambda key: key.max_in_flight),
    ("replaced_by", lambda key: key.replaced_by),
    ("revoked_at", lambda key: key.revoked_at),
    ("created_at", lambda key: key.created_at),
]
