"""Team keys without Postgres: the rows an Authenticator reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.access.key_format import TEAM_KEY, ParsedKey, Peppers, make
from gateway.db.direct import Direct
from gateway.db.engine import Database, StatementRefusedError
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
        self.full = False  # no connection is left for who wants to write
        self.broken: set[str] = set()  # ids of keys whose rows the driver cannot read

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

    async def ask(self, statement: Direct, **values: Any) -> list[Any]:
        self.asked += 1
        if self.down:
            raise errors.dependency_unavailable("down")
        rows = [self.rows[digest] for digest in values["digests"] if digest in self.rows]
        found = [SimpleNamespace(**vars(row)) for row in rows]
        if self.gates:
            await self.gates.pop(0).wait()
        if any(row.key_id in self.broken for row in found):
            raise StatementRefusedError("a value that the driver cannot read")
        return found

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        if self.full:
            raise errors.dependency_unavailable("full")
        yield cast("AsyncConnection", self)

    async def execute(self, statement: Any, _: Any = None) -> None:
        self.noted += 1
