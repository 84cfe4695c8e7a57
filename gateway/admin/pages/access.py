"""Admin access: the tokens that let people and programs in."""

from __future__ import annotations

from typing import Any

from gateway.access import admin_tokens
from gateway.access.admin_tokens import AdminToken
from gateway.admin.pages import tables
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
from gateway.errors import GatewayError

HOME = "/admin/access"
SESSIONS_SHOWN = 50
NEW: dict[str, Kind] = {"name": "kept", "role": "kept"}


async def listing(call: PageCall) -> Answer:
    if call.query.get("format") == "csv":
        return await tables.download(call, "admin-tokens", "/admin-tokens", {}, _COLUMNS)
    return await page(call)


async def issue(call: PageCall) -> Answer:
    """The new token's text is in this answer and nowhere else."""
    try:
        token = await call.change("POST", "/admin-tokens", body_of(call.form, NEW))
    except GatewayError as error:
        return await page(call, problems_of(error, NEW))
    return Html(template="access_issued.html", once=True, values={"token": token})


async def confirm_revoke(call: PageCall) -> Html:
    return Html(template="access_revoke.html", values={"token": await _find(call), "wrong": False})


async def revoke(call: PageCall) -> Answer:
    token = await _find(call)
    if not confirms(call.form, token.name):
        return Html(template="access_revoke.html", values={"token": token, "wrong": True}, status=400)
    await call.change("POST", "/admin-tokens/{id}/revoke", id=str(token.id))
    return Goto(HOME, done="token-revoked")


async def end_session(call: PageCall) -> Answer:
    await call.change("POST", "/sessions/{id}/end", id=call.params["id"])
    return Goto(HOME, done="session-ended")


async def page(call: PageCall, problems: Problems = NONE) -> Html:
    query = {name: call.query[name] for name in ("after",) if name in call.query}
    changes = await call.ask("/audit", {"subject_type": "admin-token", "limit": 1})
    values: dict[str, Any] = {
        "tokens": await call.ask("/admin-tokens", query),
        "sessions": await call.ask("/sessions", {"limit": SESSIONS_SHOWN}),
        "own": call.session.id,
        "changes": changes.data,
        "problems": problems,
        "form": NOTHING_TYPED if problems is NONE else Typed(call.form),
        "adding": problems is not NONE,
    }
    return Html(template="access.html", values=values, status=200 if problems is NONE else 400)


async def _find(call: PageCall) -> AdminToken:
    async with call.dashboard.api.database.autocommit() as connection:
        return await admin_tokens.find(connection, call.params["id"])


_COLUMNS: list[tables.Column] = [
    ("name", lambda token: token.name),
    ("id", lambda token: token.id),
    ("role", lambda token: token.role),
    ("last4", lambda token: token.last4),
    ("created_at", lambda token: token.created_at),
    ("last_used_at", lambda token: token.last_used_at),
    ("revoked_at", lambda token: token.revoked_at),
]
