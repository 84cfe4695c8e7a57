"""The details of an alert or an audit entry as lines for people: a name, what it was, what it is. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.pages.display import minute

MOST_LINES = 40
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)")


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
    # Some entries hold what was before as a whole: {"limit": 20, "from": {"limit": 10}}.
    before = detail.get("from")
    replaced = before if isinstance(before, Mapping) and set(before) <= set(detail) else {}
    for name, value in detail.items():
        if replaced and (name == "from" or (name in replaced and replaced[name] != value)):
            if name != "from":
                found.append(Line(f"{outer}{name}", _text(value), _text(replaced[name])))
            continue
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
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return _moment(value)
    return str(value)


def _moment(text: str) -> str:
    try:
        return f"{minute(datetime.fromisoformat(text))} UTC"
    except ValueError:
        return text
