"""Reads the text of `models.toml`: a price book, or every problem of the file at once, each with its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gateway.catalog.price_book import MAX_N, SIZE_CLASSES, Condition, ModelPrice, Price, PriceBook
from gateway.credits.amount import NotAnAmountError, from_decimal

_OPERATION = re.compile(r"(?:async\.)?images\.(?:generations|edits)|async\.videos\.generations")


class PriceBookError(Exception):
    """A file that cannot be used; `problems` names each mistake."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__(f"{path}: " + "; ".join(problems))
        self.path = path
        self.problems = tuple(problems)


def parse(text: str, path: Path) -> PriceBook:
    """The book in `text`; raises PriceBookError, in which `path` is where the text comes from."""
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise PriceBookError(path, [f"is not valid TOML: {error}"]) from error
    try:
        return _book(document, path)
    except PriceBookError as error:
        lines = text.splitlines()
        raise PriceBookError(path, [_located(problem, lines) for problem in error.problems]) from None


def _located(problem: str, lines: Sequence[str]) -> str:
    """`line N: …` where the model's table, and in it the field the problem names, can be found in the text."""
    name, _, what = problem.partition(": ")
    headers = {f'[models."{name}"]', f"[models.'{name}']", f"[models.{name}]"}
    start = next((at for at, line in enumerate(lines) if line.split("#")[0].strip() in headers), None)
    if start is None:
        return problem
    match = re.match(r"(?:unknown field ')?(when|\w+)", what)
    word = match[1] if match is not None else ""
    for at in range(start + 1, len(lines)):
        if lines[at].lstrip().startswith("["):
            break
        if re.match(rf"\s*{re.escape(word)}\s*=", lines[at]):
            return f"line {at + 1}: {problem}"
    return f"line {start + 1}: {problem}"


def _book(document: Mapping[str, Any], path: Path) -> PriceBook:
    problems = [f"unknown section '{name}'" for name in document if name != "models"]
    tables = document.get("models", {})
    if not isinstance(tables, dict):
        raise PriceBookError(path, ["'models' must be a table of models"])
    models = {name: _Reader(name, table, problems).model() for name, table in tables.items()}
    canonical: dict[str, str] = {}
    for name, model in models.items():
        for alias in model.aliases if model is not None else ():
            if alias in models:
                problems.append(f"{name}: alias '{alias}' is the id of another model")
            elif alias in canonical:
                problems.append(f"{name}: alias '{alias}' is already one of {canonical[alias]}")
            canonical[alias] = name
    if problems:
        raise PriceBookError(path, problems)
    good = {name: model for name, model in models.items() if model is not None}
    return PriceBook(MappingProxyType(good), MappingProxyType(canonical))


_FIELDS = frozenset(
    {
        "aliases",
        "category",
        "credits",
        "default_seconds",
        "hold",
        "max_n",
        "max_seconds",
        "per",
        "per_input_image",
        "when",
    }
)


class _Reader:
    """Reads one model's table, adding every problem to one list."""

    def __init__(self, name: str, table: Any, problems: list[str]) -> None:
        self._name = name
        self._table = table if isinstance(table, dict) else {}
        self._problems = problems
        if not isinstance(table, dict):
            self._wrong("must be a table")
        for unknown in sorted(set(self._table) - _FIELDS):
            self._wrong(f"unknown field '{unknown}'")

    def model(self) -> ModelPrice | None:
        before = len(self._problems)
        category = self._choice("category", ("image", "video"))
        per = self._choice("per", ("image", "second"))
        price = self._price(self._table, None, "")
        model = ModelPrice(
            id=self._name,
            category="video" if category == "video" else "image",
            per="second" if per == "second" else "image",
            price=price,
            when=self._conditions(price),
            aliases=self._texts(self._table, "aliases", "") or (),
            per_input_image=self._amount(self._table, "per_input_image", 0, ""),
            max_n=self._max_n(),
            default_seconds=self._seconds("default_seconds", per),
            max_seconds=self._seconds("max_seconds", per),
        )
        if model.default_seconds > model.max_seconds:
            self._wrong("default_seconds is more than max_seconds")
        return model if len(self._problems) == before else None

    def _conditions(self, base: Price) -> tuple[Condition, ...]:
        entries = self._table.get("when", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._wrong("when must be a list of tables")
            return ()
        return tuple(self._condition(entry, base, f"when[{i}].") for i, entry in enumerate(entries))

    def _condition(self, entry: dict[str, Any], base: Price, where: str) -> Condition:
        for unknown in sorted(set(entry) - {"size", "quality", "operation", "credits", "hold"}):
            self._wrong(f"unknown field '{where}{unknown}'")
        sizes = self._texts(entry, "size", where)
        for size in sizes or ():
            if size not in SIZE_CLASSES:
                self._wrong(f"{where}size: '{size}' is not one of {', '.join(SIZE_CLASSES)}")
        qualities = self._texts(entry, "quality", where)
        operations = self._texts(entry, "operation", where)
        for operation in operations or ():
            if not _OPERATION.fullmatch(operation):
                self._wrong(f"{where}operation: '{operation}' is not one, such as images.edits")
        return Condition(
            sizes=None if sizes is None else frozenset(sizes),
            qualities=None if qualities is None else frozenset(text.lower() for text in qualities),
            operations=None if operations is None else frozenset(operations),
            price=self._price(entry, base, where),
        )

    def _price(self, table: dict[str, Any], base: Price | None, where: str) -> Price:
        charged = self._amount(table, "credits", None if base is None else base.credits, where)
        if "hold" in table:
            held = self._amount(table, "hold", 0, where)
            if held < charged:
                self._wrong(f"{where}hold must be at least credits")
        else:
            held = charged if base is None or "credits" in table else max(base.hold, charged)
        return Price(charged, held)

    def _amount(self, table: dict[str, Any], field: str, default: int | None, where: str) -> int:
        value = table.get(field)
        if value is None:
            if default is None:
                self._wrong(f"{where}{field} is missing")
            return default or 0
        if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
            try:
                return from_decimal(Decimal(value))
            except NotAnAmountError as error:
                self._wrong(f"{where}{field}: {error}")
                return 0
        self._wrong(f"{where}{field} must be a number of credits")
        return 0

    def _max_n(self) -> int:
        value = self._table.get("max_n", MAX_N)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_N:
            self._wrong(f"max_n must be a whole number from 1 to {MAX_N}")
            return MAX_N
        return value

    def _seconds(self, field: str, per: str | None) -> Decimal:
        value = self._table.get(field)
        if per != "second":
            if value is not None:
                self._wrong(f'{field} only goes with per = "second"')
            return Decimal(0)
        seconds = Decimal(value) if isinstance(value, (int, Decimal)) else Decimal(0)
        if isinstance(value, bool) or not seconds.is_finite() or not 0 < seconds <= 3600:
            self._wrong(f"{field} must be a number of seconds, more than 0 and at most 3600")
            return Decimal(1)
        return seconds

    def _choice(self, field: str, allowed: tuple[str, ...]) -> str | None:
        value = self._table.get(field)
        if value not in allowed:
            self._wrong(f"{field} must be {' or '.join(repr(word) for word in allowed)}")
            return None
        return str(value)

    def _texts(self, table: dict[str, Any], field: str, where: str) -> tuple[str, ...] | None:
        value = table.get(field)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
            self._wrong(f"{where}{field} must be a list of texts")
            return None
        if where and not value:
            self._wrong(f"{where}{field} is empty, so it matches nothing")
        for text in dict.fromkeys(value):
            if text != text.strip():
                self._wrong(f"{where}{field}: '{text}' has spaces around it")
            if value.count(text) > 1:
                self._wrong(f"{where}{field}: '{text}' is there twice")
        return tuple(dict.fromkeys(value))

    def _wrong(self, what: str) -> None:
        self._problems.append(f"{self._name}: {what}")
