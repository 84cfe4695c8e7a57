"""Keyset pages: every list is read newest first along an index, and goes on where it stopped."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy import Column, DateTime, Row, Select, Uuid, literal, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors

T = TypeVar("T")
DEFAULT_LIMIT = 50
LARGEST_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, newest first; `next` is the cursor of the page after, None at the end."""

    items: tuple[T, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class PageOf:
    """Which page: at most `limit` items after the position in `after`, a cursor of the same list."""

    limit: int = DEFAULT_LIMIT
    after: str | None = None


class Keyset:
    """The order of one list: its name, and the columns that place a row in it, descending."""

    def __init__(self, name: str, *columns: Column[Any]) -> None:
        self._name = name
        self._columns = columns

    async def read(
        self,
        connection: AsyncConnection,
        query: Select[Any],
        page: PageOf,
        make: Callable[[Row[Any]], T],
    ) -> Page[T]:
        """One page of `query`, which must select the order's columns; raises GatewayError 400 on a foreign cursor."""
        if page.after is not None:
            position = [
                literal(value, column.type)
                for value, column in zip(self._decode(page.after), self._columns, strict=True)
            ]
            query = query.where(tuple_(*self._columns) < tuple_(*position))
        query = query.order_by(*(column.desc() for column in self._columns)).limit(page.limit + 1)
        rows = (await connection.execute(query)).all()
        items = tuple(make(row) for row in rows[: page.limit])
        return Page(items, self._encode(rows[page.limit - 1]) if len(rows) > page.limit else None)

    def _encode(self, row: Row[Any]) -> str:
        return encode(self._name, [_text(row._mapping[column]) for column in self._columns])

    def _decode(self, cursor: str) -> list[object]:
        try:
            texts = decode(self._name, cursor)
            return [_value(text, column) for text, column in zip(texts, self._columns, strict=True)]
        except ValueError:
            raise errors.bad_request(
                "after: must be the `next` of the page before in this list, unchanged",
                "invalid_fields",
            ) from None


def encode(name: str, position: Sequence[str]) -> str:
    """An opaque, URL-safe cursor for a position in the list `name`."""
    return base64.urlsafe_b64encode(msgspec.json.encode([name, *position])).rstrip(b"=").decode()


def decode(name: str, cursor: str) -> list[str]:
    """The position `encode` was given; raises ValueError for anything it did not make for this list."""
    found, *position = _parts(cursor)
    if found != name:
        raise ValueError("a cursor of another list")
    return position


def checked_cursor(cursor: str) -> str:
    """`cursor` when it has the form of one, of whichever list; else ValueError, for after a field's name."""
    try:
        _parts(cursor)
    except ValueError:
        raise ValueError("must be the `next` of the page before, unchanged") from None
    return cursor


def _parts(cursor: str) -> list[str]:
    """The name and position in a cursor."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        parts = msgspec.json.decode(raw, type=list[str])
    except (binascii.Error, msgspec.MsgspecError, UnicodeError) as error:
        raise ValueError("not a cursor") from error
    if not parts or any("\0" in text for text in parts):
        raise ValueError("not a cursor")
    return parts


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _value(text: str, column: Column[Any]) -> object:
    if isinstance(column.type, Uuid):
        return UUID(text)
    if isinstance(column.type, DateTime):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("a moment without a zone")
        return moment
    return text
