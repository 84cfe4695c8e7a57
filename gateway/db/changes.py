"""What a change looks like in an audit entry, and how a frozen row goes back to its table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID


def described(before: object, after: object, names: Iterable[str]) -> dict[str, object]:
    """`{field: {"from": …, "to": …}}` for these attributes of two versions of one object, fit for JSON."""
    return {name: {"from": plain(getattr(before, name)), "to": plain(getattr(after, name))} for name in names}


def listed(item: object, names: Iterable[str]) -> dict[str, object]:
    """`{field: value}` for these attributes that are set, fit for JSON."""
    return {name: plain(getattr(item, name)) for name in names if getattr(item, name) is not None}


def plain(value: object) -> object:
    """The value as JSON can hold it: times as ISO 8601, ids as text, tuples as lists."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def stored(values: Mapping[str, object]) -> dict[str, object]:
    """The values as the driver takes them: tuples become Postgres arrays."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def frozen(values: Mapping[str, object]) -> dict[str, object]:
    """A row's values as a frozen dataclass takes them: Postgres arrays become tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
