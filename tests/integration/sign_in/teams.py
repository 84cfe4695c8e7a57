"""Teams with keys for the tests of their pages, and browsers signed in with one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from gateway.access import team_keys, teams
from gateway.access.key_format import Peppers
from gateway.access.team_keys import IssuedKey, NewKey
from gateway.access.teams import NewTeam, Team
from gateway.credits.amount import MICRO
from gateway.credits.terms import Conclusion, NewTask, Order
from tests.integration.sign_in.conftest import PEPPER, Site

_NUMBERS = itertools.count()


@dataclass
class Own:
    """One team with one key."""

    site: Site
    team: Team
    issued: IssuedKey

    @property
    def secret(self) -> str:
        return self.issued.secret

    @property
    def key_id(self) -> str:
        return self.issued.key.id

    async def browser(self, address: str = "192.0.2.1", site: Site | None = None) -> httpx.AsyncClient:
        """A browser that has signed in with the key, at this or another process."""
        browser = (site or self.site).browser(address)
        answer = await browser.post("/gateway/login", data={"key": self.secret})
        assert (answer.status_code, answer.headers["location"]) == (303, "/gateway/"), answer.text
        return browser

    async def spend(self, credits_: int, model: str, *, settled: bool = True) -> UUID:
        """A hold of so many credits, and its end."""
        order = self._order(credits_, model)
        hold = (await self.site.runtime.ledger.place(order)).id
        if settled:
            end = Conclusion(state="settled", settled=credits_ * MICRO)
            assert (await self.site.runtime.ledger.end(hold, end)).changed
        return hold

    async def task(self, name: str, model: str) -> None:
        """A task that runs, for 3 credits."""
        order = self._order(3, model)
        hold = (await self.site.runtime.ledger.place(order)).id
        await self.site.sql(
            "INSERT INTO upstream_keys (id, label, account, secret, fingerprint, last4) VALUES (gen_random_uuid(),"
            " 'pooled-one', 'account-one', '', '\\x00', 'zzzz') ON CONFLICT DO NOTHING"
        )
        key = (await self.site.sql("SELECT id FROM upstream_keys LIMIT 1")).scalar_one()
        task = NewTask(id=name, upstream_key_id=key, status="submitted", body=b"{}")
        await self.site.runtime.ledger.bind(hold, order, task, ())

    def _order(self, credits_: int, model: str) -> Order:
        return Order(
            team_id=self.team.id,
            key_id=self.key_id,
            request_id=f"req_{self.team.slug}",
            operation="images.generations",
            model=model,
            quote=credits_ * MICRO,
        )


async def own(site: Site, called: str = "Team", **fields: Any) -> Own:
    """A new team and a key of it with these fields."""
    async with site.runtime.database.transaction() as connection:
        team = await teams.create(
            connection, "test", NewTeam(name=f"{called} {next(_NUMBERS)}", unlimited=True)
        )
        new = NewKey(**{"name": "laptop", **fields})
        return Own(site, team, await team_keys.issue(connection, "test", Peppers([PEPPER]), team, new))
