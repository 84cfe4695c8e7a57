"""Holds: first those that wait for a person's word, and the page where it is given."""

from __future__ import annotations

from typing import Any

from gateway.admin.api.credit_answers import HoldAnswer
from gateway.admin.api.explain_answers import StoryAnswer
from gateway.admin.pages import filters, tables
from gateway.admin.pages.given import NONE, Kind, Problems, Typed, body_of, problems_of
from gateway.admin.pages.page import Answer, Goto, Html, PageCall
from gateway.errors import GatewayError

FILTERS = ("team", "key", "model", "from", "to")
STATES = ("unknown", "held", "settled", "released", "all")
ANSWER: dict[str, Kind] = {"outcome": "text", "credits": "credits", "reason": "kept"}


async def listing(call: PageCall) -> Answer:
    query = filters.narrowed(call.query, FILTERS)
    state = call.query.get("state", "unknown")
    if state != "all":
        query["state"] = state
    if call.query.get("format") == "csv":
        return await tables.download(call, "holds", "/holds", query, _COLUMNS)
    problem, found = await filters.page(call, "/holds", query)
    values: dict[str, Any] = {
        "holds": found,
        "keys": await filters.key_names(call, {one.key for one in found.data}),
        "state": state,
        "states": STATES,
        "narrow": filters.narrowed(call.query, FILTERS),
        "problem": problem,
        **await filters.choices(call),
    }
    return Html(template="holds.html", values=values, status=400 if problem else 200)


async def ask_resolve(call: PageCall) -> Html:
    return await _page(call, Typed())


async def resolve(call: PageCall) -> Answer:
    """A reason, and a ticked outcome: nothing is decided by default."""
    form = call.form
    body = {name: value for name, value in body_of(form, ANSWER).items() if value is not None}
    if form.get("outcome") != "settle":
        body.pop("credits", None)
    try:
        await call.change("POST", "/holds/{id}/resolve", body, id=call.params["id"])
    except GatewayError as error:
        return await _page(call, Typed(form), problems_of(error, ANSWER))
    return Goto("/admin/holds", done="hold-resolved")


async def _page(call: PageCall, form: Typed, problems: Problems = NONE) -> Html:
    hold: HoldAnswer = await call.ask("/holds/{id}", id=call.params["id"])
    subject = {"subject_type": "hold", "subject_id": str(hold.id), "limit": 1}
    values: dict[str, Any] = {
        "hold": hold,
        "keys": await filters.key_names(call, {hold.key}),
        "story": await _story(call, hold),
        "form": form,
        "problems": problems,
        "changes": (await call.ask("/audit", subject)).data,
    }
    return Html(template="hold_resolve.html", values=values, status=200 if problems is NONE else 400)


async def _story(call: PageCall, hold: HoldAnswer) -> StoryAnswer | None:
    """This hold's own, of all that have its request id; None when they are too many to have it among them."""
    try:
        found = await call.ask("/requests/{request_id}/explain", request_id=hold.request_id)
    except GatewayError as error:
        if error.status != 404:
            raise
        return None
    stories = [found, *found.earlier]
    return next((one for one in stories if one.hold is not None and one.hold.id == hold.id), None)


_COLUMNS: list[tables.Column] = [
    ("id", lambda hold: hold.id),
    ("created_at", lambda hold: hold.created_at),
    ("ended_at", lambda hold: hold.ended_at),
    ("state", lambda hold: hold.state),
    ("team", lambda hold: hold.team),
    ("key", lambda hold: hold.key),
    ("model", lambda hold: hold.model),
    ("operation", lambda hold: hold.operation),
    ("quote", lambda hold: hold.quote),
    ("settled", lambda hold: hold.settled),
    ("estimated", lambda hold: hold.estimated),
    ("flags", lambda hold: hold.flags),
    ("reason", lambda hold: hold.reason),
    ("task_id", lambda hold: hold.task_id),
    ("request_id", lambda hold: hold.request_id),
]
