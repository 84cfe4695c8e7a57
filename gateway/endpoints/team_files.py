"""What a team may take away as CSV: usage, tasks and requests of its own, with totals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.access.principal import Principal
from gateway.credits import holds, usage
from gateway.credits.amount import to_decimal
from gateway.credits.holds import HoldFilter
from gateway.credits.usage import Range
from gateway.db.paging import Page, PageOf
from gateway.pages.sheets import MOST_LINES, Column, text_of
from gateway.pages.spending import Wanted
from gateway.pages.view import View
from gateway.tasks import listing as tasks
from gateway.tasks.listing import TaskFilter
from gateway.upstream.headers import Header

READ_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Download:
    """A CSV file under this name."""

    name: str
    text: str

    def headers(self) -> list[Header]:
        return [
            (b"content-type", b"text/csv; charset=utf-8"),
            (b"content-disposition", f'attachment; filename="{self.name}"'.encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]


async def usage_file(connection: AsyncConnection, which: Wanted, who: Principal, now: datetime) -> Download:
    """The range by day and by what the chart's layers are; the totals are the ledger's."""
    span = Range(start=which.start, end=which.end)
    found = await usage.statement(connection, span, ["day", which.by], who.team_id)
    return Download(f"usage-{now.date().isoformat()}.csv", usage.csv_text(found))


async def tasks_file(connection: AsyncConnection, narrow: TaskFilter, view: View) -> Download:
    """The tasks the filter lets through."""
    rows = await _all(lambda which: tasks.page(connection, narrow, which), view)
    return Download(f"tasks-{view.now.date().isoformat()}.csv", text_of(rows, _TASK))


async def requests_file(connection: AsyncConnection, narrow: HoldFilter, view: View) -> Download:
    """The paid calls the filter lets through."""
    rows = await _all(lambda which: holds.page(connection, narrow, which), view)
    return Download(f"requests-{view.now.date().isoformat()}.csv", text_of(rows, _REQUEST))


async def _all(read: Callable[[PageOf], Awaitable[Page[Any]]], view: View) -> Sequence[Any]:
    """A list from its beginning to its end; GatewayError 400 when that is too far: half a file would not add up."""
    rows: list[Any] = []
    after: str | None = None
    while True:
        page = await read(PageOf(READ_AT_ONCE, after))
        rows += page.items
        after = page.next
        if after is None:
            return rows
        if len(rows) >= MOST_LINES:
            said = view.text("This list has more than %(most)s rows. Narrow it, then download it again.")
            raise errors.bad_request(said % {"most": f"{MOST_LINES:,}"}, "invalid_fields")


def _credits(micro: int | None) -> object:
    return None if micro is None else to_decimal(micro)


_TASK: tuple[Column, ...] = (
    ("id", lambda task: task.id),
    ("key_id", lambda task: task.key_id),
    ("model", lambda task: task.model),
    ("operation", lambda task: task.operation),
    ("status", lambda task: task.status),
    ("credits_cost", lambda task: _credits(task.credits_cost)),
    ("created_at", lambda task: task.created_at),
    ("ended_at", lambda task: task.ended_at),
)
_REQUEST: tuple[Column, ...] = (
    ("id", lambda hold: str(hold.id)),
    ("placed_at", lambda hold: hold.placed_at),
    ("key_id", lambda hold: hold.key_id),
    ("model", lambda hold: hold.model),
    ("operation", lambda hold: hold.operation),
    ("state", lambda hold: hold.state),
    ("quote", lambda hold: _credits(hold.quote)),
    ("settled", lambda hold: _credits(hold.settled)),
    ("estimated", lambda hold: hold.estimated),
    ("task_id", lambda hold: hold.task_id),
    ("request_id", lambda hold: hold.request_id),
    ("ended_at", lambda hold: hold.ended_at),
)
