"""The details of an alert or an audit entry as lines for people: a name, what it was, what it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_LINES = 40


@dataclass(frozen=True, slots=True)
class Line:
    """One field; `before` is what a change replaced, None where nothing was."""

    name: str
    value: str
    before: str | None = None


def lines(detail: Mapping[str, Any]) -> list[Line]:
    """The fields of a detail, those within fields by `outer.inner`."""
    return list(_lines(detail, ""))[:MOST_LINES]


def sentence(detail: Mapping[str, Any]) -> str:
    """The same in one line: `limit: 10 → 20; enforce: true`."""
    return "; ".join(
        f"{line.name}: {line.value if line.before is None else f'{line.before} → {line.value}'}"
        for line in lines(detail)
    )


def _lines(detail: Mapping[str, Any], outer: str) -> list[Line]:
    found: list[Line] = []
    for name, value in detail.items():
        named = f"{outer}{name}"
        if isinstance(value, Mapping) and set(value) == {"from", "to"}:
            found.append(Line(named, _text(value["to"]), _text(value["from"])))
        elif isinstance(value, Mapping):
            found += _lines(value, f"{named}.")
        else:
            found.append(Line(named, _text(value)))
    return found


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(_text(one) for one in value) or "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(one)}" for name, one in value.items())
    return str(value)
