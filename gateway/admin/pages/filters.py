"""Lists with filters in their address: what narrows them, the page they show, and whether it is kept up to date."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from gateway.access import team_keys
from gateway.admin.api.answers import Listing
from gateway.admin.pages.page import PageCall
from gateway.errors import GatewayError

PAGE = 50
Names = Mapping[str, str]  # of keys, by their public ids


def narrowed(query: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The filters that are set."""
    return {name: query[name] for name in names if query.get(name)}


def is_live(query: Mapping[str, str]) -> bool:
    """Whether the list shown changes by itself: its first page does, unless somebody has paused it."""
    return "after" not in query and query.get("live") != "0"


async def page(
    call: PageCall, path: str, query: Mapping[str, str], limit: int = PAGE
) -> tuple[str, Listing[Any]]:
    """What is wrong with the filters, or nothing, and the page of the list."""
    after = {"after": call.query["after"]} if "after" in call.query else {}
    try:
        return "", await call.ask(path, {**query, **after, "limit": limit})
    except GatewayError as error:
        if error.reason not in ("invalid_fields", "team_not_found"):
            raise
        return error.message, Listing([], has_more=False, next=None)


async def choices(call: PageCall) -> dict[str, list[str]]:
    """What the fields for a team and a model suggest."""
    teams = await call.ask("/teams", {"limit": 200})
    return {
        "teams": sorted(team.slug for team in teams.data),
        "models": sorted(call.dashboard.prices.book.models),
    }


async def key_names(call: PageCall, key_ids: Collection[str]) -> Names:
    """What the keys of a page are called."""
    if not key_ids:
        return {}
    async with call.dashboard.api.database.autocommit() as connection:
        found = await team_keys.by_ids(connection, set(key_ids))
    return {ident: key.name for ident, key in found.items()}
