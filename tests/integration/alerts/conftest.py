"""Processes that judge and send, on a real Postgres."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from gateway.alerts import deliveries, records, webhooks
from gateway.alerts.deliveries import Delivery
from gateway.alerts.evaluator import Changes, Evaluator
from gateway.alerts.facts import OwnFacts
from gateway.alerts.messages import Format
from gateway.alerts.records import Alert
from gateway.alerts.sender import Sender
from gateway.alerts.webhooks import NewWebhook, Webhook
from gateway.clock import SystemClock
from gateway.credits.amount import MICRO
from gateway.db.engine import Database
from gateway.db.paging import PageOf
from gateway.ids import uuid7
from gateway.pool.vault import Vault
from gateway.telemetry import Metrics

VAULT = Vault(["master-key-of-the-alert-tests-0123456789"])
_numbers = itertools.count(1)


@dataclass
class Process:
    """What one gateway process has of this."""

    database: Database
    metrics: Metrics = field(default_factory=Metrics)
    own: OwnFacts = field(default_factory=OwnFacts)

    def __post_init__(self) -> None:
        self.evaluator = Evaluator(self.database, metrics=self.metrics, clock=SystemClock())
        self.sender = Sender(self.database, VAULT, self.metrics)

    async def judge(self) -> Changes:
        return await self.evaluator.once(self.own)

    async def kinds(self) -> tuple[list[str], list[str]]:
        """The kinds one pass raises and resolves."""
        changes = await self.judge()
        return sorted(one.kind for one in changes.raised), sorted(one.kind for one in changes.resolved)


@dataclass
class Alerting:
    """Two processes on one database."""

    database: Database
    one: Process
    other: Process

    async def run(self, statement: str, **values: Any) -> list[Any]:
        async with self.database.autocommit() as connection:
            found = await connection.execute(text(statement), values)
            return list(found.all()) if found.returns_rows else []

    async def team(self, limit: int = 100) -> tuple[UUID, UUID]:
        """A team with a counted monthly quota of so many credits: the ids of team and quota."""
        team, quota = uuid7(), uuid7()
        await self.run(
            "INSERT INTO teams (id, slug, name) VALUES (:id, :slug, 'A')", id=team, slug=f"a-{next(_numbers)}"
        )
        await self.run(
            "INSERT INTO quotas (id, team_id, period, limit_micro) VALUES (:id, :team, 'month', :limit)",
            id=quota,
            team=team,
            limit=limit * MICRO,
        )
        await self.run("SELECT gateway_open_counters(:team)", team=team)
        return team, quota

    async def use(self, quota: UUID, held: float) -> None:
        await self.run(
            "UPDATE quota_periods SET held = :held WHERE quota_id = :id", id=quota, held=round(held * MICRO)
        )

    async def webhook(
        self, url: str, kinds: tuple[str, ...] | None = None, format_: Format = "standard"
    ) -> tuple[Webhook, str]:
        async with self.database.transaction() as connection:
            return await webhooks.add(
                connection, "test", VAULT, NewWebhook(url=url, kinds=kinds, format=format_)
            )

    async def alerts(self) -> list[Alert]:
        async with self.database.autocommit() as connection:
            return list((await records.page(connection, None, PageOf(200))).items)

    async def deliveries(self) -> list[Delivery]:
        async with self.database.autocommit() as connection:
            return list((await deliveries.page(connection, None, None, PageOf(200))).items)


@pytest.fixture
async def alerting(database_url: str) -> AsyncIterator[Alerting]:
    databases = [Database(database_url) for _ in range(2)]
    found = Alerting(databases[0], *map(Process, databases))
    yield found
    for process in (found.one, found.other):
        await process.sender.close()
        await process.database.close()
