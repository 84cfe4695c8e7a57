"""The price book in force: the last good version of `models.toml`, looked at again every few seconds."""

from __future__ import annotations

import logging
from decimal import Decimal
from pathlib import Path

from gateway.catalog.price_book import MAX_N, ModelPrice, Price, PriceBook
from gateway.catalog.price_parser import PriceBookError, parse

log = logging.getLogger("gateway.prices")


class PriceFile:
    """`default_hold` in micro-credits prices models the book does not know; None refuses them.

    The constructor raises PriceBookError: a process does not start on a book it cannot read.
    """

    def __init__(self, path: Path, default_hold: int | None = None) -> None:
        self._path = path
        self._default_hold = default_hold
        self._seen = _version(path)
        self.book: PriceBook = load(path)
        self.error: PriceBookError | None = None

    def priced(self, model: str) -> ModelPrice | None:
        """The model's price, or the default hold's when that is how unpriced models are treated."""
        known = self.book.model(model)
        if known is not None or self._default_hold is None:
            return known
        return unpriced(model, self._default_hold)

    def reload(self) -> bool:
        """Takes a changed file over when it is good, else keeps the old book and says why; whether it changed."""
        version = _version(self._path)
        if version == self._seen:
            return False
        self._seen = version
        try:
            self.book = load(self._path)
        except PriceBookError as error:
            self.error = error
            for problem in error.problems:
                log.error("price book not taken over: the old one stays", extra={"detail": problem})
            return False
        self.error = None
        log.info("price book taken over", extra={"detail": f"{len(self.book.models)} models"})
        return True


def load(path: Path) -> PriceBook:
    """The book in a file; raises PriceBookError with every problem found."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise PriceBookError(path, [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise PriceBookError(path, [f"is not valid TOML: {error}"]) from error
    return parse(text, path)


def unpriced(model: str, hold: int) -> ModelPrice:
    """What a model without a price is held at: one amount an image or video, whatever its size or length."""
    return ModelPrice(
        id=model,
        category=None,
        per="image",
        price=Price(hold, hold),
        when=(),
        aliases=(),
        per_input_image=0,
        max_n=MAX_N,
        default_seconds=Decimal(0),
        max_seconds=Decimal(0),
    )


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
