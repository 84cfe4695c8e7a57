"""Calls as the ledger keeps them, for pages about requests, tasks and holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.credits.amount import MICRO
from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion, NewTask, Order, SentVia
from tests.integration.admin.pages.conftest import Dashboard


@dataclass
class Traffic:
    """Calls of one key of a new team."""

    dashboard: Dashboard
    team: dict[str, Any]
    key: dict[str, Any]
    upstream: dict[str, Any]

    @property
    def ledger(self) -> Ledger:
        return self.dashboard.site.runtime.ledger

    def order(self, request_id: str, credits_: int, model: str = "a-model") -> Order:
        return Order(
            team_id=UUID(self.team["id"]),
            key_id=self.key["id"],
            request_id=request_id,
            operation="images.generations",
            model=model,
            quote=credits_ * MICRO,
        )

    def sent(self, outcome: str, status: int | None) -> list[SentVia]:
        ident = UUID(self.upstream["id"])
        return [SentVia(upstream_key_id=ident, outcome=outcome, status=status, milliseconds=5)]

    async def held(self, request_id: str, credits_: int = 8) -> UUID:
        return (await self.ledger.place(self.order(request_id, credits_))).id

    async def settled(self, request_id: str, credits_: int = 8, cost: int = 6, **more: Any) -> UUID:
        hold = await self.held(request_id, credits_)
        ends = Conclusion(state="settled", settled=cost * MICRO, **more)
        await self.ledger.end(hold, ends, self.sent("answered", 200))
        return hold

    async def unknown(self, request_id: str, credits_: int = 8) -> UUID:
        hold = await self.held(request_id, credits_)
        await self.ledger.end(
            hold, Conclusion(state="unknown", reason="timed out"), self.sent("unknown", None)
        )
        return hold

    async def task(self, request_id: str, task_id: str, body: bytes, *, ended: bool) -> UUID:
        order = self.order(request_id, 8)
        hold = (await self.ledger.place(order)).id
        new = NewTask(id=task_id, upstream_key_id=UUID(self.upstream["id"]), status="submitted", body=body)
        await self.ledger.bind(hold, order, new, self.sent("answered", 200))
        if ended:
            await self.dashboard.site.sql(
                "UPDATE tasks SET status = 'completed', ended_at = now(), credits_cost = 7000000 WHERE id = %(id)s",
                id=task_id,
            )
            await self.ledger.end(hold, Conclusion(state="settled", settled=7 * MICRO))
        return hold


async def traffic(dashboard: Dashboard, name: str) -> Traffic:
    """A team of this name with a key and an upstream key."""
    team = await dashboard.api("POST", "/teams", {"name": name, "unlimited": True})
    key = await dashboard.api("POST", f"/teams/{team['slug']}/keys", {"name": f"key of {name}"})
    upstream = await dashboard.api(
        "POST", "/upstream-keys", {"label": f"account {name}", "secret": f"sk-{team['slug']}-0000001"}
    )
    return Traffic(dashboard, team, key, upstream)
