"""Audit: who changed what, with filters in the address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.access import teams
from gateway.admin.api.answers import AuditAnswer, Listing
from gateway.admin.pages import details, tables
from gateway.admin.pages.details import Line
from gateway.admin.pages.given import NONE, Problems, Typed, problems_of
from gateway.admin.pages.page import Answer, Html, PageCall
from gateway.errors import GatewayError

FILTERS = ("actor", "action", "subject_type", "subject_id", "team")
SUBJECTS = (
    "team",
    "key",
    "upstream-key",
    "hold",
    "admin-token",
    "session",
    "sign-in",
    "webhook",
    "delivery",
    "ledger",
    "master-key",
    "pepper",
)
PLACES = {"team": "/admin/teams/", "key": "/admin/keys/", "upstream-key": "/admin/upstream-keys/"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry with its details in lines, and the page of what it is about."""

    entry: AuditAnswer
    team: str | None
    lines: tuple[Line, ...]
    link: str | None


async def show(call: PageCall) -> Answer:
    narrow = {name: call.query[name] for name in FILTERS if name in call.query}
    query = narrow | {name: call.query[name] for name in ("after",) if name in call.query}
    if call.query.get("format") == "csv":
        return await tables.download(call, "audit", "/audit", narrow, _COLUMNS)
    problems = NONE
    found: Listing[AuditAnswer] = Listing([], False, None)
    try:
        found = await call.ask("/audit", query)
    except GatewayError as error:
        problems = _problems(error)
    async with call.dashboard.api.database.autocommit() as connection:
        slugs = await teams.by_ids(connection, {one.team_id for one in found.data if one.team_id})
    values: dict[str, Any] = {
        "listing": found,
        "entries": [_entry(one, {ident: team.slug for ident, team in slugs.items()}) for one in found.data],
        "subjects": SUBJECTS,
        "narrowed": bool(narrow),
        "filters": Typed(narrow),
        "problems": problems,
    }
    return Html(template="audit.html", values=values, status=200 if problems is NONE else 400)


def _entry(one: AuditAnswer, slugs: Mapping[UUID, str]) -> Entry:
    place = PLACES.get(one.subject_type)
    return Entry(
        entry=one,
        team=None if one.team_id is None else slugs.get(one.team_id),
        lines=tuple(details.lines(one.detail)),
        link=None if place is None or one.action.endswith(".remove") else place + one.subject_id,
    )


def _problems(error: GatewayError) -> Problems:
    if error.status == 404:
        return Problems({"team": error.message})
    return problems_of(error, FILTERS)


_COLUMNS: list[tables.Column] = [
    ("made_at", lambda entry: entry.made_at),
    ("actor", lambda entry: entry.actor),
    ("action", lambda entry: entry.action),
    ("subject_type", lambda entry: entry.subject_type),
    ("subject_id", lambda entry: entry.subject_id),
    ("team_id", lambda entry: entry.team_id),
    ("detail", lambda entry: details.sentence(entry.detail)),
    ("id", lambda entry: entry.id),
]
