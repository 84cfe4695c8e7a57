"""Rows that other rows hang on: a team with a key, and an upstream key."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

from sqlalchemy import select

from gateway.access import team_keys, teams
from gateway.access.key_format import Peppers
from gateway.access.team_keys import NewKey
from gateway.access.teams import NewTeam
from gateway.credits.terms import NewTask, Order
from gateway.db.engine import Database
from gateway.db.tables import attempts, holds, tasks
from gateway.pool import upstream_keys
from gateway.pool.upstream_keys import NewUpstreamKey
from tests.fakes.key_table import VAULT

ACTOR = "test"
PEPPERS = Peppers(["pepper-of-the-integration-tests-0123456789"])
_numbers = count(1)


@dataclass(frozen=True)
class Caller:
    """A team, one of its keys, and the upstream key its calls go through."""

    team_id: UUID
    key_id: str
    secret: str
    upstream_key_id: UUID
    account: str

    def order(self, quote: int = 8_000_000) -> Order:
        return Order(
            team_id=self.team_id,
            key_id=self.key_id,
            request_id="req_test",
            operation="async.videos.generations",
            model="veo",
            quote=quote,
        )

    def task(self, task_id: str | None = None) -> NewTask:
        """A newly accepted task, by default with an id of its own."""
        found = task_id or f"task_{next(_numbers)}"
        body = f'{{"id":"{found}","status":"submitted"}}'.encode()
        return NewTask(id=found, upstream_key_id=self.upstream_key_id, status="submitted", body=body)


async def caller(database: Database, **restrictions: Any) -> Caller:
    """A new unlimited team with one key, and an upstream key of an account of its own."""
    number = next(_numbers)
    async with database.transaction() as connection:
        team = await teams.create(connection, ACTOR, NewTeam(name=f"Team {number}", unlimited=True))
        new = NewKey(name="laptop", **restrictions)
        issued = await team_keys.issue(connection, ACTOR, PEPPERS, team, new)
        upstream = await upstream_keys.add(
            connection, ACTOR, VAULT, NewUpstreamKey(label=f"key-{number}", secret=f"sk_secret_{number:08}")
        )
    return Caller(team.id, issued.key.id, issued.secret, upstream.id, upstream.account)


async def hold_row(database: Database, hold_id: UUID) -> Any:
    async with database.autocommit() as connection:
        return (await connection.execute(select(holds).where(holds.c.id == hold_id))).one()


async def task_row(database: Database, task_id: str) -> Any:
    async with database.autocommit() as connection:
        return (await connection.execute(select(tasks).where(tasks.c.id == task_id))).one_or_none()


async def attempt_rows(database: Database, hold_id: UUID) -> list[Any]:
    query = select(attempts).where(attempts.c.hold_id == hold_id).order_by(attempts.c.number)
    async with database.autocommit() as connection:
        return list(await connection.execute(query))
