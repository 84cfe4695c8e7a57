"""Team keys without Postgres: the rows an Authenticator reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.access.key_format import TEAM_KEY, ParsedKey, Peppers, make
from gateway.db.engine import Database
from tests.fakes.principals import TEAM_ID

PEPPERS = Peppers(["pepper-of-the-authenticator-tests-0123456789"])


class KeyRows(Database):
    """Stands in for the database of an Authenticator; `down` makes every connection fail, `asked` counts questions.

    Each of `gates` holds the answer to one question up, made of what the rows were when it was asked.
    """

    def __init__(self) -> None:
        self.rows: dict[bytes, SimpleNamespace] = {}
        self.gates: list[asyncio.Event] = []
        self.asked = 0
        self.noted = 0
        self.down = False

    def add(self, team_id: UUID = TEAM_ID, **fields: Any) -> ParsedKey:
        """A new key of the team, without restrictions but for these fields."""
        key = make(TEAM_KEY)
        plain: dict[str, Any] = {
            "team_id": team_id,
            "slug": "alpha",
            "team_name": "Alpha",
            "suspended_at": None,
            "time_zone": "UTC",
            "team_models": None,
            "team_rpm": None,
            "team_in_flight": None,
            "key_id": key.public_id,
            "key_name": "laptop",
            "digest": PEPPERS.sign(key.text),
            "pepper": PEPPERS.names[0],
            "expires_at": None,
            "noted_long_ago": False,
            "allowed_addresses": None,
            "key_models": None,
            "key_rpm": None,
            "key_in_flight": None,
        }
        self.rows[PEPPERS.sign(key.text)] = SimpleNamespace(**(plain | fields))
        return key

    def change(self, key: ParsedKey, **fields: Any) -> None:
        vars(self.rows[PEPPERS.sign(key.text)]).update(fields)

    def revoke(self, key: ParsedKey) -> SimpleNamespace:
        """Takes the key's row away and returns it."""
        return self.rows.pop(PEPPERS.sign(key.text))

    def hold_up(self) -> asyncio.Event:
        """The answer to the next question waits until the event is set."""
        self.gates.append(asyncio.Event())
        return self.gates[-1]

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        self.asked += 1
        if self.down:
            raise errors.dependency_unavailable("down")
        yield cast("AsyncConnection", self)

    async def execute(self, statement: Any, parameters: Mapping[str, Any] | None = None) -> SimpleNamespace:
        if not isinstance(statement, Select):
            self.noted += 1
            return SimpleNamespace()
        rows = [self.rows[digest] for digest in (parameters or {})["digests"] if digest in self.rows]
        found = [SimpleNamespace(**vars(row)) for row in rows]
        if self.gates:
            await self.gates.pop(0).wait()
        return SimpleNamespace(all=lambda: found)
