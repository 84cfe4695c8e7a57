"""Prices: the book in force, what is wrong with a newer one, and what Pixapi really charges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.admin.pages import tables
from gateway.admin.pages.page import Answer, Download, Html, PageCall
from gateway.catalog.price_book import Condition, ModelPrice
from gateway.credits import charged
from gateway.credits.amount import to_decimal
from gateway.credits.charged import Charged


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A model of the book and how its latest calls were charged."""

    model: ModelPrice
    charged: Charged | None


async def show(call: PageCall) -> Answer:
    book = call.dashboard.prices.book
    async with call.dashboard.api.database.transaction() as connection:
        found = await charged.by_model(connection, book.models)
    lines = [Line(model=model, charged=found.get(name)) for name, model in book.models.items()]
    if call.query.get("format") == "csv":
        day = call.view.now.date().isoformat()
        return Download(f"prices-{day}.csv", tables.text_of(_rows(lines), _COLUMNS))
    values: dict[str, Any] = {
        "lines": lines,
        "error": call.dashboard.prices.error,
        "latest": charged.LATEST,
        "looked_at": charged.LOOKED_AT,
    }
    return Html(template="prices.html", values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    model: ModelPrice
    condition: Condition | None
    charged: Charged | None


def _rows(lines: list[Line]) -> list[_Row]:
    """A row for each price: those of conditions first, as they are looked at first."""
    return [
        _Row(model=line.model, condition=condition, charged=None if condition else line.charged)
        for line in lines
        for condition in (*line.model.when, None)
    ]


def _when(row: _Row) -> str:
    if row.condition is None:
        return ""
    parts = {
        "size": row.condition.sizes,
        "quality": row.condition.qualities,
        "operation": row.condition.operations,
    }
    return "; ".join(f"{name} {', '.join(sorted(values))}" for name, values in parts.items() if values)


# Prices and means are no sums: they are text, so that no total is made of them.
_COLUMNS: list[tables.Column] = [
    ("model", lambda row: row.model.id),
    ("aliases", lambda row: row.model.aliases),
    ("category", lambda row: row.model.category),
    ("per", lambda row: row.model.per),
    ("when", _when),
    ("credits", lambda row: _text((row.condition or row.model).price.credits)),
    ("hold", lambda row: _text((row.condition or row.model).price.hold)),
    ("per_input_image", lambda row: _text(row.model.per_input_image)),
    ("max_n", lambda row: row.model.max_n),
    ("compared_calls", lambda row: row.charged.calls if row.charged else None),
    ("compared_quoted", lambda row: _text(row.charged.quoted) if row.charged else None),
    ("compared_settled", lambda row: _text(row.charged.settled) if row.charged else None),
    ("overruns", lambda row: row.charged.overruns if row.charged else None),
]


def _text(micro: int) -> str:
    return f"{to_decimal(micro):f}"
