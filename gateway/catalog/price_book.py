"""The price book: models by name, and what a call of one costs.

A `PriceBook` is one good `models.toml`, frozen. Quotes take plain values and return micro-credits; they are upper
bounds of what Pixapi can charge as far as the book knows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from types import MappingProxyType
from typing import Literal

SIZE_CLASSES = ("512", "1k", "2k", "4k")
MAX_N = 10


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-credits for one unit (an image, or a second): what is charged, and what is held before."""

    credits: int
    hold: int


@dataclass(frozen=True, slots=True)
class Condition:
    """One `when` entry: every named property must match; None matches anything."""

    sizes: frozenset[str] | None
    qualities: frozenset[str] | None
    operations: frozenset[str] | None
    price: Price

    def matches(self, size: str | None, quality: str | None, operation: str) -> bool:
        return (
            (self.sizes is None or size in self.sizes)
            and (self.qualities is None or quality in self.qualities)
            and (self.operations is None or operation in self.operations)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrice:
    """One model of the book."""

    id: str
    category: Literal["image", "video"] | None  # None: not known
    per: Literal["image", "second"]
    price: Price
    when: tuple[Condition, ...]
    aliases: tuple[str, ...]
    per_input_image: int
    max_n: int
    default_seconds: Decimal
    max_seconds: Decimal

    def unit(self, size: str | None, quality: str | None, operation: str) -> Price:
        """The price of one unit: the first matching `when`, else the base."""
        for condition in self.when:
            if condition.matches(size, quality, operation):
                return condition.price
        return self.price


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Models by id; `aliases` says which model each alias stands for."""

    models: Mapping[str, ModelPrice] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def canonical(self, name: str) -> str:
        """The model an alias stands for; any other name is itself."""
        return self.aliases.get(name, name)

    def model(self, name: str) -> ModelPrice | None:
        """The model of an id or alias, None when the book has no price for it."""
        return self.models.get(self.aliases.get(name, name))


def quote(
    model: ModelPrice,
    *,
    operation: str,
    images: int,
    sizes: Sequence[str | None],
    quality: str | None,
    seconds: Decimal | None,
    input_images: int,
) -> Price:
    """The price of a whole call in micro-credits.

    `sizes` are the size classes the request may mean (none at all: `(None,)`); the dearest counts. `seconds` is what
    was asked for, None for the model's default; the caller has checked it and `images` against the model's bounds.
    """
    quality = quality.strip().lower() if quality is not None else None
    charged = held = 0
    for size in sizes or (None,):
        unit = model.unit(size, quality, operation)
        charged, held = max(charged, unit.credits), max(held, unit.hold)
    if model.per == "second":
        length = images * (seconds if seconds is not None else model.default_seconds)
        charged, held = _times(charged, length), _times(held, length)
    else:
        charged, held = charged * images, held * images
    extra = model.per_input_image * input_images * images
    return Price(credits=charged + extra, hold=held + extra)


def _times(micro: int, count: Decimal) -> int:
    return int((micro * count).quantize(Decimal(1), rounding=ROUND_HALF_UP))
