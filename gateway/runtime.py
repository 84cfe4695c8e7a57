"""All collaborators of one process: opened in order, kept at work by background loops, closed in reverse.

`composition.build` makes one. `Runtime.running()` is the application's lifespan.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from prometheus_client.exposition import generate_latest

from gateway import errors
from gateway.access.admin_tokens import AdminTokens
from gateway.access.authenticator import Authenticator
from gateway.access.refusals import WRITE_SECONDS, Refusals
from gateway.access.sign_in_attempts import SignInAttempts
from gateway.admin.api.route import AdminApi
from gateway.admin.callers import Callers
from gateway.admin.oidc import OidcSignIn
from gateway.admin.sign_in_pages import SignInPages
from gateway.alerts.evaluator import Evaluator
from gateway.alerts.facts import OwnFacts
from gateway.alerts.sender import Sender
from gateway.background import cancel, every, watch_lag
from gateway.cache.client import CacheClient
from gateway.cache.events import Events
from gateway.catalog.model_list import ModelList
from gateway.catalog.price_file import PriceFile
from gateway.clock import Clock
from gateway.credits.aging import Aging
from gateway.credits.ledger import Ledger
from gateway.credits.rollups import ROLL_SECONDS, Rollups
from gateway.db import schema
from gateway.db.engine import Database, StatementRefusedError, promptly
from gateway.db.partitions import ensure_partitions
from gateway.limits.limits import RENEW_SECONDS, Limits
from gateway.pages.rendering import Pages
from gateway.pages.team_visits import TeamVisits
from gateway.pool.checks import LOOK_SECONDS as CHECKS_SECONDS
from gateway.pool.checks import Checks
from gateway.pool.dispatch import Dispatcher
from gateway.pool.pool import Pool
from gateway.proxy.paid_calls import PaidCalls
from gateway.repeats.repeats import Repeats
from gateway.settings import Settings
from gateway.siblings import Siblings
from gateway.spool import SpoolBudget
from gateway.tasks.entries import TaskEntries
from gateway.tasks.reader import TaskReader
from gateway.tasks.reconciler import Reconciler
from gateway.tasks.watch import LOOK_SECONDS, Watch
from gateway.telemetry import Metrics
from gateway.tracing import Tracing
from gateway.upstream.client import UpstreamClient

log = logging.getLogger("gateway.runtime")

POOL_REFRESH_SECONDS = 2.0
MODELS_WARM_SECONDS = 2.0  # reads only what is missing or due
PRICES_SECONDS = 2.0
AGING_SECONDS = 15.0
REPEATS_SECONDS = 5.0
PARTITIONS_SECONDS = 6 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """All collaborators of one process."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    tracing: Tracing
    siblings: Siblings
    database: Database
    admin_database: Database
    cache: CacheClient
    events: Events
    limits: Limits
    spool: SpoolBudget
    client: UpstreamClient
    pool: Pool
    key_checks: Checks
    dispatcher: Dispatcher
    models: ModelList
    prices: PriceFile
    ledger: Ledger
    entries: TaskEntries
    watch: Watch
    reader: TaskReader
    reconciler: Reconciler
    aging: Aging
    rollups: Rollups
    alerts: Evaluator
    sender: Sender
    refusals: Refusals
    paid_calls: PaidCalls
    repeats: Repeats
    authenticator: Authenticator
    admin_tokens: AdminTokens
    callers: Callers
    sign_in_attempts: SignInAttempts
    oidc: OidcSignIn
    pages: Pages
    sign_in_pages: SignInPages
    team_visits: TeamVisits
    admin_api: AdminApi
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Opens what connects, runs the background loops, and closes everything in reverse."""
        async with AsyncExitStack() as stack:
            self.tracing.open()
            stack.push_async_callback(asyncio.to_thread, self.tracing.close)
            stack.push_async_callback(self.database.close)
            stack.push_async_callback(self.admin_database.close)
            stack.push_async_callback(self.cache.close)
            await self.client.open()
            stack.push_async_callback(self.client.close)
            await self.pool.refresh()
            stack.push_async_callback(self.pool.close)
            stack.push_async_callback(self.key_checks.close)
            stack.push_async_callback(self.models.close)
            stack.push_async_callback(self.authenticator.noted)
            stack.push_async_callback(self.ledger.close)
            stack.push_async_callback(self.repeats.close)
            stack.push_async_callback(self.reader.close)
            stack.push_async_callback(self.reconciler.close)
            stack.push_async_callback(self.sender.close)
            await self.siblings.open(self.page)
            stack.push_async_callback(self.siblings.close)
            stack.push_async_callback(self.refusals.write)
            loops = [
                asyncio.create_task(every(POOL_REFRESH_SECONDS, self.pool.refresh)),
                asyncio.create_task(every(CHECKS_SECONDS, self.key_checks.once)),
                asyncio.create_task(every(MODELS_WARM_SECONDS, self.models.warm, at_once=True)),
                asyncio.create_task(every(PRICES_SECONDS, self._reload_prices)),
                asyncio.create_task(self.reconciler.run()),
                asyncio.create_task(self.events.run()),
                asyncio.create_task(watch_lag(self.metrics.loop_lag.observe)),
                asyncio.create_task(every(RENEW_SECONDS, self.limits.renew)),
                asyncio.create_task(every(LOOK_SECONDS, self.watch.look)),
                asyncio.create_task(every(REPEATS_SECONDS, self.repeats.clear)),
                asyncio.create_task(every(AGING_SECONDS, self._age_holds)),
                asyncio.create_task(every(ROLL_SECONDS, self._sum_usage, at_once=True)),
                asyncio.create_task(every(self.settings.alerts.every, self._judge)),
                asyncio.create_task(self.sender.run()),
                asyncio.create_task(every(AGING_SECONDS, self._count_open_holds, at_once=True)),
                asyncio.create_task(every(WRITE_SECONDS, self.refusals.write)),
                asyncio.create_task(every(AGING_SECONDS, self.refusals.expire)),
                asyncio.create_task(every(AGING_SECONDS, self._clear_sign_ins)),
                asyncio.create_task(every(PARTITIONS_SECONDS, self._ensure_partitions, at_once=True)),
            ]
            stack.push_async_callback(cancel, loops)
            yield
            self.paid_calls.shut()
            self.watch.close()
            await self._give_up()

    async def drain(self) -> None:
        """Is not ready any more, takes paid calls until load balancers have noticed, then none, and waits for those
        under way; what else is asked is answered all the time.

        Cancelled because the time is up, it gives up what still runs, so that those who wait get an answer.
        """
        self.ending.set()
        try:
            await asyncio.sleep(self.settings.server.drain_min_seconds)
            self.paid_calls.shut()
            await self.paid_calls.ended()
        except asyncio.CancelledError:
            self.paid_calls.shut()
            await self._give_up()
            raise
        finally:
            # Not before: who was told to go on would only ask again.
            self.watch.close()

    async def _give_up(self) -> None:
        if late := await self.paid_calls.give_up():
            log.warning("paid calls given up as unknown", extra={"detail": str(late)})

    async def checks(self) -> dict[str, str]:
        """The state of every dependency by name: "ok", or what is wrong."""
        found = {"database": await self._database_state(), "redis": await self.cache.state()}
        if self.ending.is_set():
            found["process"] = "draining"
        return found

    def page(self) -> bytes:
        """This process's metrics in Prometheus's text format."""
        self.set_gauges()
        return generate_latest(self.metrics.registry)

    def set_gauges(self) -> None:
        self.metrics.paid_in_flight.set(self.paid_calls.under_way)
        self.metrics.waiting.set(self.watch.waiting)
        self.metrics.spool_bytes.set(self.spool.used)
        self.metrics.price_book_refused.set(self.prices.error is not None)
        in_use, free = self.database.connections()
        self.metrics.database_connections.labels("in_use").set(in_use)
        self.metrics.database_connections.labels("free").set(free)
        self.metrics.set_upstream_keys(
            (key.label, key.state, {use.value: rests for use, rests in found.items()})
            for key, found in self.pool.standing()
        )

    async def _judge(self) -> None:
        problems = () if self.prices.error is None else self.prices.error.problems
        own = OwnFacts(price_book_problems=problems, stretched=self.reconciler.stretched)
        await self.alerts.once(own)

    async def _age_holds(self) -> None:
        aged = await self.aging.once()
        self.metrics.aged_holds.labels("unknown").inc(aged.unknown)
        self.metrics.aged_holds.labels("settled").inc(aged.settled)

    async def _sum_usage(self) -> None:
        await self.rollups.once()

    async def _count_open_holds(self) -> None:
        for state, count in (await self.aging.open_holds()).items():
            self.metrics.open_holds.labels(state).set(count)

    async def _clear_sign_ins(self) -> None:
        await self.callers.sessions.clear()
        await self.team_visits.sessions.clear()
        await self.sign_in_attempts.clear()

    async def _ensure_partitions(self) -> None:
        await ensure_partitions(self.database)

    async def _reload_prices(self) -> None:
        await asyncio.to_thread(self.prices.reload)

    async def _database_state(self) -> str:
        try:
            revision = await promptly(self.database.revision())
        except errors.GatewayError:
            return "unreachable"
        except StatementRefusedError:
            return "not migrated"
        return "ok" if revision is not None and revision >= schema.head() else "not migrated"
