"""Statements that go to the driver at once: SQLAlchemy writes them, once, and has no part in sending them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg


class Direct:
    """For `Database.ask`. The driver takes the values as they are and makes the rows' own, so the statement must not
    rely on what SQLAlchemy's types do to either."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement

    @cached_property
    def text(self) -> bytes:
        """With `$1`, … where its values go."""
        return str(self._compiled).encode()

    def arguments(self, values: dict[str, object]) -> list[object]:
        """The values in the order of their places; those that the statement has of its own need not be given."""
        return [values.get(name, own) for name, own in self._places]

    @cached_property
    def _places(self) -> list[tuple[str, object]]:
        compiled = self._compiled
        return [(name, compiled.params[name]) for name in compiled.positiontup]

    @cached_property
    def _compiled(self) -> Any:
        return self._statement.compile(dialect=PGDialect_psycopg(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]
