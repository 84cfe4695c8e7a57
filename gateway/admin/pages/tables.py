"""Lists as CSV files: every row the filter lets through, and a last line with the sums of what can be summed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from gateway import errors
from gateway.admin.pages.page import Download, PageCall
from gateway.db.paging import LARGEST_LIMIT
from gateway.pages.sheets import MOST_LINES, Column, text_of

# A file may take a hundred reads; several at once would slow down whatever else the process does.
_ONE_FILE_AT_A_TIME = asyncio.Semaphore(1)

__all__ = ["Column", "download", "everything", "file", "text_of"]


async def download(
    call: PageCall, name: str, path: str, query: Mapping[str, str], columns: Sequence[Column], **params: str
) -> Download:
    """The list that the admin API answers at `path`, from its beginning to its end, as a file."""
    return file(call, name, await everything(call, path, query, **params), columns)


def file(call: PageCall, name: str, rows: Sequence[Any], columns: Sequence[Column]) -> Download:
    """The rows under this name and today's date."""
    return Download(f"{name}-{call.view.now.astimezone(UTC).date().isoformat()}.csv", text_of(rows, columns))


async def everything(call: PageCall, path: str, query: Mapping[str, str], **params: str) -> list[Any]:
    """All rows of a list of the admin API.

    GatewayError 400 when there are more than MOST_LINES: a file that silently stops would not add up.
    """
    async with _ONE_FILE_AT_A_TIME:
        return await _everything(call, path, query, params)


async def _everything(
    call: PageCall, path: str, query: Mapping[str, str], params: Mapping[str, str]
) -> list[Any]:
    rows: list[Any] = []
    after: str | None = None
    while True:
        page = {**query, "limit": LARGEST_LIMIT} | ({} if after is None else {"after": after})
        found = await call.ask(path, page, **params)
        rows += found.data
        if found.next is None:
            return rows
        if len(rows) >= MOST_LINES:
            raise errors.bad_request(
                call.text(
                    "This list has more than %(most)s rows. Narrow it by its filters, then download it again."
                )
                % {"most": f"{MOST_LINES:,}"},
                "invalid_fields",
            )
        after = found.next
