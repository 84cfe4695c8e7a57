"""Spending as the dashboard shows it: each name leads to the page of what it names."""

from __future__ import annotations

from urllib.parse import quote
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.credits.daily import Daily
from gateway.pages import spending
from gateway.pages.chart import Chart
from gateway.pages.display import Text
from gateway.pages.spending import GROUPINGS, Grouping, Wanted, next_month, this_month, wanted

__all__ = ["GROUPINGS", "Grouping", "Wanted", "chart", "drawn", "next_month", "this_month", "wanted"]


async def chart(connection: AsyncConnection, which: Wanted, text: Text, team: UUID | None = None) -> Chart:
    """The chart of `gateway.pages.spending`, with links."""
    return await spending.chart(connection, which, text, team, page_of)


async def drawn(connection: AsyncConnection, which: Wanted, found: Daily, text: Text) -> Chart:
    """The same, of days that were read already."""
    return await spending.drawn(connection, which, found, text, page_of)


def page_of(by: Grouping, name: str) -> str:
    """The page of a team by its slug, of a model, or of a key by its id."""
    if by == "team":
        return f"/admin/teams/{name}"
    return f"/admin/requests?model={quote(name, safe='')}" if by == "model" else f"/admin/keys/{name}"
