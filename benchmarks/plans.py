"""What Postgres does for a piece of work: every SELECT of a Database is recorded and can be asked for its plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import event

from gateway.db.engine import Database

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as the driver got it."""

    text: str
    values: Any

    def plan(self, connection: psycopg.Connection[Any], settings: Sequence[str] = ()) -> list[Node]:
        """Every node of its plan, with these planner settings off."""
        with connection.transaction(force_rollback=True):
            for name in settings:
                connection.execute(f"SET LOCAL {name} = off".encode())
            row = connection.execute(f"EXPLAIN (FORMAT JSON) {self.text}".encode(), self.values).fetchone()
        return list(_nodes(row[0][0]["Plan"])) if row is not None else []


@contextmanager
def recorded(database: Database) -> Iterator[list[Statement]]:
    """The SELECTs that are sent in the block, in their order."""
    found: list[Statement] = []
    engine = database._engine.sync_engine

    def note(
        _connection: object, _cursor: object, statement: str, values: Any, _context: object, _many: bool
    ) -> None:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            found.append(Statement(statement, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)


def _nodes(plan: Node) -> Iterator[Node]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
