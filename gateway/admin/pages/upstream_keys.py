"""Upstream keys: the pool with what went through each key, a key's page, and what is done to one."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from uuid import UUID

from gateway.admin.api.answers import UpstreamKeyAnswer
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
from gateway.credits import rollups
from gateway.credits.amount import to_decimal
from gateway.credits.rollups import SPANS, Through
from gateway.errors import GatewayError
from gateway.tasks import listing as tasks

HOME = "/admin/upstream-keys"
NEW: dict[str, Kind] = {
    "label": "kept",
    "secret": "kept",
    "account": "kept",
    "weight": "count",
    "max_in_flight": "count",
}
SETTINGS: dict[str, Kind] = {
    "label": "kept",
    "account": "kept",
    "weight": "count",
    "max_in_flight": "count",
}
IDLE = (Through(),) * len(SPANS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy a key is and was: paid calls of this process now, tasks that run for it, and what it has served
    today, in 7 and in 30 UTC days."""

    calls: int
    tasks: int
    served: tuple[Through, ...]


async def listing(call: PageCall) -> Answer:
    if call.query.get("format") == "csv":
        return await _csv(call)
    return await page(call)


async def add(call: PageCall) -> Answer:
    body = body_of(call.form, NEW)
    if body["weight"] is None:
        del body["weight"]
    try:
        key = await call.change("POST", "/upstream-keys", body)
    except GatewayError as error:
        return await page(call, _named(problems_of(error, NEW), error))
    return Goto(f"{HOME}/{key.id}", done="upstream-added")


async def show(call: PageCall) -> Html:
    return await key_page(call)


async def update(call: PageCall) -> Answer:
    try:
        key = await call.change("PATCH", "/upstream-keys/{id}", body_of(call.form, SETTINGS), id=_id(call))
    except GatewayError as error:
        return await key_page(call, _named(problems_of(error, SETTINGS), error))
    return Goto(f"{HOME}/{key.id}", done="upstream-updated")


async def drain(call: PageCall) -> Goto:
    key = await call.change("POST", "/upstream-keys/{id}/drain", id=_id(call))
    return Goto(f"{HOME}/{key.id}", done="upstream-draining")


async def enable(call: PageCall) -> Goto:
    key = await call.change("POST", "/upstream-keys/{id}/enable", id=_id(call))
    return Goto(f"{HOME}/{key.id}", done="upstream-enabled")


async def confirm_disable(call: PageCall) -> Html:
    return Html(template="upstream_key_disable.html", values={"key": await _find(call), "wrong": False})


async def disable(call: PageCall) -> Answer:
    key = await _find(call)
    if not confirms(call.form, key.label):
        return Html(template="upstream_key_disable.html", values={"key": key, "wrong": True}, status=400)
    await call.change("POST", "/upstream-keys/{id}/disable", id=str(key.id))
    return Goto(f"{HOME}/{key.id}", done="upstream-disabled")


async def confirm_remove(call: PageCall) -> Html:
    return _removal(await _find(call))


async def remove(call: PageCall) -> Answer:
    key = await _find(call)
    if not confirms(call.form, key.label):
        return _removal(key, wrong=True, force=call.form.get("force") == "1")
    query = {"force": "true"} if call.form.get("force") == "1" else {}
    try:
        await call.change("DELETE", "/upstream-keys/{id}", query=query, id=str(key.id))
    except GatewayError as error:
        if error.reason != "unfinished_tasks":
            raise
        return _removal(key, refused=error.message)
    return Goto(HOME, done="upstream-removed")


async def page(call: PageCall, problems: Problems = NONE) -> Html:
    """The pool; with `problems`, the form of a new key is shown again, without its secret."""
    query = {name: call.query[name] for name in ("after",) if name in call.query}
    keys = await call.ask("/upstream-keys", query)
    values: dict[str, Any] = {
        "keys": keys,
        "load": await _load(call, [key.id for key in keys.data]),
        "problems": problems,
        "form": NOTHING_TYPED if problems is NONE else Typed({**call.form, "secret": ""}),
        "adding": problems is not NONE,
    }
    return Html(template="upstream_keys.html", values=values, status=200 if problems is NONE else 400)


async def key_page(call: PageCall, problems: Problems = NONE) -> Html:
    key = await _find(call)
    changes = await call.ask(
        "/audit", {"subject_type": "upstream-key", "subject_id": str(key.id), "limit": 1}
    )
    values: dict[str, Any] = {
        "key": key,
        "load": (await _load(call, [key.id]))[key.id],
        "changes": changes.data,
        "problems": problems,
        "editing": problems is not NONE,
        "form": Typed(call.form),
    }
    return Html(template="upstream_key.html", values=values, status=200 if problems is NONE else 400)


async def _load(call: PageCall, keys: list[UUID]) -> Mapping[UUID, Load]:
    served = await _served(call)
    async with call.dashboard.api.database.autocommit() as connection:
        running = await tasks.running_by_upstream_key(connection)
    calls = call.dashboard.pool.paid_in_flight()
    return {
        key: Load(calls=calls.get(key, 0), tasks=running.get(key, 0), served=served.get(key, IDLE))
        for key in keys
    }


async def _find(call: PageCall) -> UpstreamKeyAnswer:
    key: UpstreamKeyAnswer = await call.ask("/upstream-keys/{id}", id=_id(call))
    return key


def _id(call: PageCall) -> str:
    return call.params["id"]


def _named(problems: Problems, error: GatewayError) -> Problems:
    """A label or secret that is taken is a problem of its field."""
    name, colon, said = error.message.partition(": ")
    if error.reason == "upstream_key_exists" and colon and name in NEW:
        return Problems({name: said})
    return problems


def _removal(key: UpstreamKeyAnswer, *, wrong: bool = False, force: bool = False, refused: str = "") -> Html:
    values = {"key": key, "wrong": wrong, "force": force, "refused": refused}
    return Html(template="upstream_key_remove.html", values=values, status=400 if wrong or refused else 200)


class Gone:
    """A line of the file for a key that was removed: what went through it still counts."""

    state = "removed"

    def __init__(self, ident: UUID) -> None:
        self.id = ident

    def __getattr__(self, name: str) -> None:
        return None


async def _csv(call: PageCall) -> Answer:
    served = await _served(call)

    def through(at: int) -> list[tables.Column]:
        return [
            (f"requests_{SPANS[at]}d", lambda key: served.get(key.id, IDLE)[at].requests),
            (f"credits_{SPANS[at]}d", lambda key: to_decimal(served.get(key.id, IDLE)[at].credits)),
        ]

    columns = [*_COLUMNS, *(column for at in range(len(SPANS)) for column in through(at))]
    keys = await tables.everything(call, "/upstream-keys", {})
    gone = [Gone(ident) for ident in sorted(set(served) - {key.id for key in keys})]
    return tables.file(call, "upstream-keys", [*keys, *gone], columns)


async def _served(call: PageCall) -> Mapping[UUID, tuple[Through, ...]]:
    async with call.dashboard.api.database.autocommit() as connection:
        return await rollups.upstream_credits(connection, call.view.now.astimezone(UTC).date())


_COLUMNS: list[tables.Column] = [
    *(
        (name, operator.attrgetter(name))
        for name in (
            "label",
            "id",
            "account",
            "last4",
            "state",
            "state_reason",
            "rest_reason",
            "paid_rests_until",
            "reads_rest_until",
            "weight",
            "max_in_flight",
            "created_at",
        )
    )
]
