"""What the small 2xx bodies of Pixapi hold, read at once: the id of a submit, a task's state."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

MAX_WORD = 64  # characters of a status
MAX_CREDITS = Decimal(10**9)

_COST = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?")
_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class OddCost(Enum):
    """Why a task's credits_cost is no amount."""

    MISSING = "missing"
    NULL = "null"
    NEGATIVE = "negative"
    UNREADABLE = "unreadable"  # not a number, NaN, or absurdly large


@dataclass(frozen=True, slots=True)
class Submitted:
    """Pixapi's answer to an async submit. `progress` is 0 to 100, `created_at` Unix seconds."""

    id: str
    status: str | None
    model: str | None
    progress: int | None
    created_at: int | None


@dataclass(frozen=True, slots=True)
class TaskState:
    """Pixapi's answer to a task read. `status` as given; `credits_cost` in credits, exact, when it is one."""

    id: str
    status: str
    model: str | None
    progress: int | None
    credits_cost: Decimal | OddCost
    has_result: bool


def submitted(body: bytes) -> Submitted | None:
    """Read a submit answer; None when it is not Pixapi's shape (no JSON object, no well-formed id)."""
    found = _decoded(body)
    if found is None:
        return None
    return Submitted(
        found.id, _word(found.status), _text(found.model), _percent(found.progress), _whole(found.created_at)
    )


def task_state(body: bytes) -> TaskState | None:
    """Read a task; None when it is not Pixapi's shape (no JSON object, no well-formed id, no status word).

    A status of more than 64 characters or with control characters is no word.
    """
    found = _decoded(body)
    status = None if found is None else _word(found.status)
    if found is None or status is None:
        return None
    return TaskState(
        id=found.id,
        status=status,
        model=_text(found.model),
        progress=_percent(found.progress),
        credits_cost=_cost(bytes(found.credits_cost)),
        has_result=bytes(found.result) not in (b"", b"null"),
    )


class _Fields(msgspec.Struct):
    id: str
    status: Any = None
    model: Any = None
    progress: Any = None
    created_at: Any = None
    credits_cost: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(_Fields)


def _decoded(body: bytes) -> _Fields | None:
    found: _Fields | None
    try:
        found = _DECODER.decode(body)
    except (ValueError, RecursionError):
        found = _decoded_with_nan(body) if b"NaN" in body or b"Infinity" in body else None
    return found if found is not None and _TASK_ID.fullmatch(found.id) is not None else None


def _decoded_with_nan(body: bytes) -> _Fields | None:
    """Python services write NaN without quotes; one odd number must not hide a task that has ended."""
    try:
        readable = json.loads(body, parse_constant=str, parse_float=Decimal)
        return _DECODER.decode(msgspec.json.encode(readable))
    except (ValueError, OverflowError, RecursionError):
        return None


def _cost(raw: bytes) -> Decimal | OddCost:
    """The amount in the JSON value `raw`, a number or number text."""
    if raw in (b"", b"null"):
        return OddCost.NULL if raw else OddCost.MISSING
    text = raw.decode("utf-8", "replace").strip('"').strip()
    if _COST.fullmatch(text) is None:
        return OddCost.UNREADABLE
    cost = Decimal(text)
    if cost < 0:
        return OddCost.NEGATIVE
    return abs(cost) if cost <= MAX_CREDITS else OddCost.UNREADABLE


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _word(value: object) -> str | None:
    text = _text(value)
    return text if text is not None and len(text) <= MAX_WORD and text.isprintable() else None


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if value == value // 1 else None


def _percent(value: object) -> int | None:
    number = _whole(value)
    return number if number is not None and 0 <= number <= 100 else None
