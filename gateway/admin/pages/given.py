"""From what was typed into a form to the body of an admin API row, and from its refusal back to the fields. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from gateway.errors import GatewayError

# An empty field is null; of `kept` ones, absent.
Kind = Literal["text", "kept", "count", "credits", "list", "tick"]


@dataclass(frozen=True, slots=True)
class Problems:
    """What was wrong with a form: by field, and what belongs to none of them."""

    fields: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def of(self, name: str) -> str:
        return self.fields.get(name, "")


class Typed(dict[str, str]):
    """What was typed into a form, to show it again; of a field that was not sent, nothing."""

    def __missing__(self, name: str) -> str:
        return ""


NONE = Problems()
NOTHING_TYPED = Typed()


def body_of(form: Mapping[str, str], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The fields that `kinds` names, as the admin API takes them. What is no number stays text, which it refuses by
    name."""
    body: dict[str, Any] = {}
    for name, kind in kinds.items():
        text = form.get(name, "")
        if kind == "tick":
            body[name] = text != ""
        elif text == "":
            if kind != "kept":
                body[name] = None
        else:
            body[name] = _value(text, kind)
    return body


def confirms(form: Mapping[str, str], name: str) -> bool:
    """Whether the name was typed, as a person reads it: browsers show several spaces as one."""
    return form.get("name", "").split() == name.split()


def problems_of(error: GatewayError, names: Iterable[str]) -> Problems:
    """The refusal of a form with fields of these `names`. Of a field within another, such as `quota.limit`, the last
    part counts. Raises the error again when it is about more than what was typed."""
    if error.status not in (400, 409, 422):
        raise error
    if error.reason != "invalid_fields":
        return Problems(others=(error.message,))
    known, found, others = set(names), dict[str, str](), list[str]()
    for line in error.message.split("; "):
        name, colon, said = line.partition(": ")
        last = name.rpartition(".")[2]
        if colon and last in known:
            found.setdefault(last, said)
        else:
            others.append(line)
    return Problems(found, tuple(others))


def _value(text: str, kind: Kind) -> Any:
    if kind == "list":
        return [part for part in re.split(r"[\s,]+", text) if part]
    if kind == "count":
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else text
    if kind == "credits":
        try:
            number = Decimal(text.replace(",", "").replace("\u202f", "").replace(" ", ""))
        except InvalidOperation:
            return text
        return number if number.is_finite() and abs(number.adjusted()) < 30 else text
    return text
