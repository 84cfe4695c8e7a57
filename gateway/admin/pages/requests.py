"""Requests: paid calls as they happen, and one request's whole story."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from gateway.admin.api.credit_answers import RequestAnswer
from gateway.admin.api.explain_answers import ExplainAnswer
from gateway.admin.pages import filters, tables
from gateway.admin.pages.page import Answer, Goto, Html, PageCall
from gateway.errors import GatewayError

FILTERS = ("state", "team", "key", "model", "request_id", "from", "to")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")  # what `request_context` accepts from clients


async def listing(call: PageCall) -> Answer:
    """The list, for a script that polls its rows alone; with `id` the way to that request's page."""
    if "id" in call.query:
        return await _look_up(call, call.query["id"].strip())
    query = filters.narrowed(call.query, FILTERS)
    if call.query.get("format") == "csv":
        return await tables.download(call, "requests", "/requests", query, _COLUMNS)
    problem, found = await filters.page(call, "/requests", query)
    values: dict[str, Any] = {
        "requests": found,
        "keys": await filters.key_names(call, {one.key for one in found.data}),
        "lasted": lasted,
        "narrow": query,
    }
    if call.view.fragment and not problem:
        return Html(template="requests_rows.html", values=values, live=True)
    values |= await filters.choices(call)
    values |= {"live": filters.is_live(call.query) and not problem, "problem": problem}
    return Html(template="requests.html", values=values, status=400 if problem else 200)


async def show(call: PageCall) -> Html:
    return await _story(call, call.params["request_id"])


async def _look_up(call: PageCall, request_id: str) -> Answer:
    """To its own page, if it can have one: `..` would be the folder above, and other characters are in no id."""
    if _ID.fullmatch(request_id) and request_id not in (".", ".."):
        return Goto(f"/admin/requests/{request_id}")
    return await _story(call, request_id)


async def _story(call: PageCall, request_id: str) -> Html:
    """Everything there is of a request id; of one that is unknown, what that may mean."""
    try:
        found: ExplainAnswer = await call.ask("/requests/{request_id}/explain", request_id=request_id)
    except GatewayError as error:
        if error.status != 404:
            raise
        return Html(template="request_unknown.html", values={"request_id": request_id}, status=404)
    stories = [found, *found.earlier]
    keys = {one.hold.key for one in stories if one.hold is not None}
    values = {
        "request_id": request_id,
        "stories": stories,
        "keys": await filters.key_names(call, keys),
        "lasted": lasted,
        "changes": await _changes(call, found),
    }
    return Html(template="request.html", values=values)


async def _changes(call: PageCall, found: ExplainAnswer) -> list[Any]:
    if found.hold is None:
        return []
    subject = {"subject_type": "hold", "subject_id": str(found.hold.id), "limit": 1}
    changes: list[Any] = (await call.ask("/audit", subject)).data
    return changes


def lasted(start: datetime, end: datetime | None) -> int | None:
    """Milliseconds between two moments; None before the second."""
    return None if end is None else max(0, round((end - start).total_seconds() * 1000))


def _last_key(one: RequestAnswer) -> str | None:
    return one.attempts[-1].upstream_key if one.attempts else None


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
    ("milliseconds", lambda one: lasted(one.created_at, one.ended_at)),
    ("task_id", lambda one: one.task_id),
]
