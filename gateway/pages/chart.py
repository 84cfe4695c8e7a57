"""Stacked charts of spending: the largest names as layers, everything else as one. Pure; amounts in micro-credits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate
from typing import Any

from gateway.credits.amount import to_text

LAYERS = 6
OTHER_TONE = "s7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One name with its amount each day; `tone` is the colour's name, `link` leads to what it is."""

    name: str
    tone: str
    values: tuple[int, ...]
    total: int
    link: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Days and layers, the largest first; `total` is exact."""

    days: tuple[date, ...]
    layers: tuple[Layer, ...]
    total: int

    def document(self, *, cumulative: bool) -> dict[str, Any]:
        """What the script draws; amounts as exact text."""
        return {
            "days": [day.isoformat() for day in self.days],
            "cumulative": cumulative,
            "series": [
                {
                    "name": layer.name,
                    "tone": layer.tone,
                    "values": [
                        to_text(value) for value in (accumulate(layer.values) if cumulative else layer.values)
                    ],
                }
                for layer in self.layers
            ],
        }

    def by_day(self) -> list[tuple[date, int]]:
        """Every day's sum."""
        return [(day, sum(layer.values[at] for layer in self.layers)) for at, day in enumerate(self.days)]


def stacked(
    days: Sequence[date],
    sums: Mapping[date, int],
    top: Sequence[tuple[str, Mapping[date, int]]],
    other: str,
    links: Sequence[str | None] = (),
) -> Chart:
    """`sums` is what was spent each day by all, `top` what the largest names did; the difference is `other`.

    `links` are the pages of the names, in their order.
    """
    layers = [
        _layer(
            name, f"s{at + 1}", [found.get(day, 0) for day in days], links[at] if at < len(links) else None
        )
        for at, (name, found) in enumerate(top)
    ]
    rest = [sums.get(day, 0) - sum(layer.values[at] for layer in layers) for at, day in enumerate(days)]
    if any(rest):
        layers.append(_layer(other, OTHER_TONE, rest))
    return Chart(days=tuple(days), layers=tuple(layers), total=sum(layer.total for layer in layers))


def days_between(start: date, end: date) -> list[date]:
    """Every day from `start`, inclusive, to `end`, exclusive."""
    return [start + timedelta(days=number) for number in range((end - start).days)]


def projected(spent: Mapping[date, int], today: date, days_in_month: int) -> int | None:
    """What a month will have cost at its end if it goes on as in its last seven whole days; None on its first."""
    whole = [
        spent.get(date(today.year, today.month, day), 0) for day in range(max(1, today.day - 7), today.day)
    ]
    if not whole:
        return None
    each = sum(whole) // len(whole)
    so_far = sum(amount for day, amount in spent.items() if day < today)
    ahead = [date(today.year, today.month, day) for day in range(today.day, days_in_month + 1)]
    return so_far + sum(max(spent.get(day, 0), each) for day in ahead)


def _layer(name: str, tone: str, values: Sequence[int], link: str | None = None) -> Layer:
    return Layer(name=name, tone=tone, values=tuple(values), total=sum(values), link=link)
