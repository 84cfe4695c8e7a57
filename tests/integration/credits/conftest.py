"""A ledger on a migrated database of its own, and a team with keys to spend with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from gateway.access import team_keys, teams
from gateway.access.key_format import Peppers
from gateway.access.session_rules import SessionRules
from gateway.access.team_keys import NewKey
from gateway.access.teams import NewTeam
from gateway.admin.api import teams as team_rows
from gateway.admin.api.requests import Nothing, PatchTeam
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.clock import SystemClock
from gateway.credits import quotas, standing
from gateway.credits.amount import MICRO
from gateway.credits.ledger import Ledger
from gateway.credits.quotas import Limit, Owner, Period
from gateway.credits.standing import Standing
from gateway.credits.terms import Conclusion, NewTask, Order
from gateway.credits.verify import Proof, verify
from gateway.db.engine import Database
from gateway.pool.vault import Vault
from tests.fakes.events import NobodyListens

PEPPERS = Peppers(["pepper-of-the-ledger-tests-0123456789"])
VAULT = Vault(["master-key-of-the-ledger-tests-0123456789"])


@dataclass
class Books:
    """The ledger and shortcuts to what tests do with it; credits are whole numbers of them."""

    database: Database
    ledger: Ledger

    async def team(self, name: str = "Spenders", **fields: Any) -> UUID:
        new = NewTeam(name=name, unlimited=True, **fields)
        async with self.database.transaction() as connection:
            return (await teams.create(connection, "test", new)).id

    async def key(self, team_id: UUID) -> str:
        async with self.database.transaction() as connection:
            team = await teams.find(connection, str(team_id))
            return (await team_keys.issue(connection, "test", PEPPERS, team, NewKey(name="k"))).key.id

    async def rotated(self, key: str, overlap: int = 3600) -> str:
        """The key that replaces this one."""
        async with self.database.transaction() as connection:
            ends = (SystemClock().now(), overlap)
            _, issued = await team_keys.rotate(connection, "test", PEPPERS, key, ends)
        return issued.key.id

    async def move(self, team_id: UUID, zone: str) -> None:
        """The team into another time zone, as the admin API does it."""
        api = AdminApi(
            database=self.database,
            peppers=PEPPERS,
            vault=VAULT,
            clock=SystemClock(),
            changed=NobodyListens(),
            sessions=SessionRules(idle=1800, absolute=28_800),
        )
        call = AdminCall("test", "admin", {"team": str(team_id)}, PatchTeam(time_zone=zone), Nothing())
        assert (await team_rows.update(api, call)).time_zone == zone

    async def standings(self, team_id: UUID, key: str) -> list[Standing]:
        async with self.database.autocommit() as connection:
            return await standing.of_key(connection, team_id, key)

    async def quota(
        self, owner: Owner, credits_: float, period: Period = "month", *, enforce: bool = True
    ) -> UUID:
        limit = Limit(round(credits_ * MICRO), enforce)
        async with self.database.transaction() as connection:
            return (await quotas.put(connection, "test", owner, period, limit)).id

    async def place(self, team_id: UUID, key: str, credits_: int, model: str = "a-model") -> UUID:
        order = Order(
            team_id=team_id,
            key_id=key,
            request_id="req_test",
            operation="images.generations",
            model=model,
            quote=credits_ * MICRO,
        )
        return (await self.ledger.place(order)).id

    async def settle(self, hold: UUID, credits_: int, **more: Any) -> None:
        await self.end(hold, Conclusion(state="settled", settled=credits_ * MICRO, **more))

    async def end(self, hold: UUID, conclusion: Conclusion) -> None:
        assert (await self.ledger.end(hold, conclusion)).changed

    async def task(self, hold: UUID, team_id: UUID, key: str, cost: int | None) -> str:
        """A task of this hold that has ended at this cost, and with it the hold."""
        await self.execute(
            "INSERT INTO upstream_keys (id, label, account, secret, fingerprint, last4)"
            " VALUES (gen_random_uuid(), 'main', 'main', '', '', '') ON CONFLICT DO NOTHING"
        )
        [row] = await self.execute("SELECT id FROM upstream_keys LIMIT 1")
        order = Order(team_id=team_id, key_id=key, request_id="r", operation="o", model="a-model", quote=0)
        task = NewTask(id=f"task_{hold}", upstream_key_id=row.id, status="submitted", body=b"{}")
        await self.ledger.bind(hold, order, task, ())
        values = {"task": task.id, "cost": None if cost is None else cost * MICRO}
        await self.execute(
            "UPDATE tasks SET ended_at = now(), credits_cost = :cost WHERE id = :task", **values
        )
        return task.id

    async def execute(self, statement: str, **values: Any) -> Sequence[Any]:
        async with self.database.transaction() as connection:
            result = await connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    async def counter(self, quota_id: UUID) -> tuple[float, float]:
        """Settled and held credits of the quota's one counter."""
        query = "SELECT settled, held FROM quota_periods WHERE quota_id = :quota"
        [row] = await self.execute(query, quota=quota_id)
        return row.settled / MICRO, row.held / MICRO

    async def proof(self) -> Proof:
        async with self.database.transaction() as connection:
            return await verify(connection)


@pytest.fixture
async def books(database_url: str) -> AsyncIterator[Books]:
    database = Database(database_url)
    ledger = Ledger(database)
    yield Books(database, ledger)
    await ledger.close()
    await database.close()
