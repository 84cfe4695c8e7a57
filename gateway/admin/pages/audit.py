"""Audit: who changed what, with filters in the address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.access import admin_tokens, teams
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
    """An entry with its details in lines, its actor by name, and the page of what it is about."""

    entry: AuditAnswer
    actor: str
    team: str | None
    lines: tuple[Line, ...]
    link: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Names of what entries name by its id."""

    teams: Mapping[UUID, str]
    tokens: Mapping[UUID, str]


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
        tokens = await admin_tokens.by_ids(
            connection, {ident for one in found.data if (ident := _token(one.actor))}
        )
    known = Known(
        teams={ident: team.slug for ident, team in slugs.items()},
        tokens={ident: token.name for ident, token in tokens.items()},
    )
    values: dict[str, Any] = {
        "listing": found,
        "entries": [_entry(one, known) for one in found.data],
        "subjects": SUBJECTS,
        "narrowed": bool(narrow),
        "filters": Typed(narrow),
        "problems": problems,
    }
    return Html(template="audit.html", values=values, status=200 if problems is NONE else 400)


def _entry(one: AuditAnswer, known: Known) -> Entry:
    token = _token(one.actor)
    place = PLACES.get(one.subject_type)
    return Entry(
        entry=one,
        actor=one.actor if token is None else known.tokens.get(token, one.actor),
        team=None if one.team_id is None else known.teams.get(one.team_id),
        lines=tuple(details.lines(one.detail)),
        link=None if place is None or one.action.endswith(".remove") else place + one.subject_id,
    )


def _token(actor: str) -> UUID | None:
    """The token in an actor that is one."""
    kind, _, ident = actor.partition(":")
    try:
        return UUID(ident) if kind == "admin-token" else None
    except ValueError:
        return None


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
