"""Requests: paid calls as they happen, and one request's whole story."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from gateway import errors
from gateway.admin.api.credit_answers import HoldAnswer, RequestAnswer
from gateway.admin.api.explain_answers import ExplainAnswer, StoryAnswer
from gateway.admin.pages import filters, tables
from gateway.admin.pages.page import Answer, Goto, Html, PageCall
from gateway.errors import GatewayError

FILTERS = ("state", "team", "key", "model", "request_id", "from", "to")
STATES = ("held", "unknown", "settled", "released")
PAGE = 50


async def listing(call: PageCall) -> Answer:
    """The list; for a script that polls, its rows alone."""
    query = filters.narrowed(call.query, FILTERS)
    if call.query.get("format") == "csv":
        return await tables.download(call, "requests", "/requests", query, _COLUMNS)
    wrong, found = await filters.page(call, "/requests", query, PAGE)
    values: dict[str, Any] = {
        "requests": found,
        "live": filters.is_live(call.query) and not wrong,
        "narrow": query,
        "problem": wrong,
        "states": STATES,
    }
    if call.view.fragment and not wrong:
        return Html(template="requests_rows.html", values=values, live=True)
    return Html(template="requests.html", values=values, status=400 if wrong else 200)


async def look_up(call: PageCall) -> Goto:
    """From the form with an id to the page of it."""
    ident = call.query.get("id", "").strip()
    return Goto(address_of(ident) if ident else "/admin/requests")


async def show(call: PageCall) -> Html:
    """Everything there is of a request id; of one that was nothing here, what that may mean."""
    request_id = call.params["request_id"]
    try:
        found: ExplainAnswer = await call.ask("/requests/{request_id}/explain", request_id=request_id)
    except GatewayError as error:
        if error.status != 404:
            raise
        return Html(template="request_unknown.html", values={"request_id": request_id}, status=404)
    stories: Sequence[StoryAnswer] = [found, *found.earlier]
    values: dict[str, Any] = {"found": found, "stories": stories}
    if found.hold is not None:
        changes = await call.ask("/audit", {"subject_type": "hold", "subject_id": str(found.hold.id), "limit": 1})
        values["changes"] = changes.data
    else:
        values["changes"] = []
    return Html(template="request.html", values=values)


def address_of(request_id: str) -> str:
    """The page of a request id; ids are chosen by clients."""
    if request_id in (".", ".."):  # which browsers take for folders, however they are written
        raise errors.not_found()
    return f"/admin/requests/{quote(request_id, safe='')}"


def milliseconds_of(hold: HoldAnswer) -> int | None:
    """How long it was held, or took to be settled; None while it is."""
    return _between(hold.created_at, hold.ended_at)


def _between(start: datetime, end: datetime | None) -> int | None:
    return None if end is None else max(0, round((end - start).total_seconds() * 1000))


def _last_key(one: RequestAnswer) -> str:
    return "" if not one.attempts else one.attempts[-1].upstream_key or ""


_COLUMNS: list[tables.Column] = [
    ("request_id", lambda one: one.request_id),
    ("created_at", lambda one: one.created_at),
    ("ended_at", lambda one: one.ended_at),
    ("team", lambda one: one.team),
    ("key", lambda one: one.key),
    ("model", lambda one: one.model),
    ("operation", lambda one: one.operation),
    ("state", lambda one: one.state),
    ("flags", lambda one: one.flags),
    ("quote", lambda one: one.quote),
    ("settled", lambda one: one.settled),
    ("estimated", lambda one: one.estimated),
    ("upstream_key", _last_key),
    ("sends", lambda one: len(one.attempts)),
    ("milliseconds", milliseconds_of),
    ("task_id", lambda one: one.task_id),
]
