"""Lists as CSV text: names, rows, and a last line with the sums of what can be summed. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from gateway.credits.amount import from_decimal, to_text
from gateway.credits.usage import inert

MOST_LINES = 20_000
Column = tuple[str, Callable[[Any], object]]  # its name, and its value in a row


def text_of(rows: Sequence[Any], columns: Sequence[Column]) -> str:
    """Names, rows, and the totals of columns that hold credits; those exactly, as decimal text."""
    cells = [[value(row) for _, value in columns] for row in rows]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([name for name, _ in columns])
    writer.writerows([[_plain(cell) for cell in line] for line in cells])
    sums = [_sum([line[at] for line in cells]) for at in range(len(columns))]
    if any(sums):
        writer.writerow(["total", *sums[1:]])
    return out.getvalue()


def _sum(cells: Sequence[object]) -> str:
    amounts = [cell for cell in cells if isinstance(cell, Decimal)]
    return to_text(sum(from_decimal(amount) for amount in amounts)) if amounts else ""


def _plain(cell: object) -> object:
    """As text that no spreadsheet takes for a formula."""
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        return to_text(from_decimal(cell))
    if isinstance(cell, datetime):
        return cell.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, tuple | list):
        cell = " ".join(str(part) for part in cell)
    return inert(str(cell))
