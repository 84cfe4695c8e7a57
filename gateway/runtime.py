"""The composition root: every collaborator is built once here, opened in order and closed in reverse.

Nothing is connected by building. `Runtime.running()` is the application's lifespan.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway import errors
from gateway.access.admin_tokens import AdminTokens
from gateway.access.authenticator import Authenticator
from gateway.access.key_format import Peppers
from gateway.admin.api.route import AdminApi, Topic
from gateway.catalog.model_list import ModelList
from gateway.catalog.price_file import PriceFile
from gateway.clock import Clock, SystemClock
from gateway.credits.aging import Ages, Aging, longest_call
from gateway.credits.amount import from_decimal
from gateway.credits.ledger import Ledger
from gateway.db import migrate
from gateway.db.engine import Database, StatementRefusedError, promptly
from gateway.db.partitions import ensure_partitions
from gateway.pool.dispatch import SENDS, Dispatcher
from gateway.pool.pool import Pool
from gateway.pool.vault import Vault
from gateway.proxy.paid_calls import PaidCalls
from gateway.settings import Settings
from gateway.spool import SpoolBudget
from gateway.tasks.reader import TaskReader
from gateway.tasks.reconciler import Reconciler
from gateway.tasks.registry import Registry
from gateway.tasks.schedule import Pace
from gateway.telemetry import Metrics
from gateway.upstream.client import UpstreamClient

log = logging.getLogger("gateway.runtime")

POOL_REFRESH_SECONDS = 2.0
MODELS_WARM_SECONDS = 2.0  # reads only what is missing or due
PRICES_SECONDS = 2.0
AGING_SECONDS = 15.0
PARTITIONS_SECONDS = 6 * 3600.0
LEASE_SECONDS = 10.0  # beyond a read's own time-out


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """All collaborators of one process."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    database: Database
    redis: Redis
    spool: SpoolBudget
    client: UpstreamClient
    pool: Pool
    dispatcher: Dispatcher
    models: ModelList
    prices: PriceFile
    ledger: Ledger
    reader: TaskReader
    reconciler: Reconciler
    aging: Aging
    paid_calls: PaidCalls
    authenticator: Authenticator
    admin_tokens: AdminTokens
    admin_api: AdminApi

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Opens what connects, runs the background loops, and closes everything in reverse."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.database.close)
            stack.push_async_callback(self.redis.aclose)
            await self.client.open()
            stack.push_async_callback(self.client.close)
            await self.pool.refresh()
            stack.push_async_callback(self.pool.close)
            stack.push_async_callback(self.models.close)
            stack.push_async_callback(self.ledger.close)
            stack.push_async_callback(self.reader.close)
            stack.push_async_callback(self.reconciler.close)
            loops = [
                asyncio.create_task(_every(POOL_REFRESH_SECONDS, self.pool.refresh)),
                asyncio.create_task(_every(MODELS_WARM_SECONDS, self.models.warm, at_once=True)),
                asyncio.create_task(_every(PRICES_SECONDS, self._reload_prices)),
                asyncio.create_task(self.reconciler.run()),
                asyncio.create_task(_every(AGING_SECONDS, self._age_holds)),
                asyncio.create_task(_every(PARTITIONS_SECONDS, self._ensure_partitions, at_once=True)),
            ]
            stack.push_async_callback(_cancel, loops)
            yield
            self.paid_calls.shut()
            await self._give_up()

    async def drain(self) -> None:
        """Takes no new paid calls and waits for those under way; what else is asked is still answered.

        Cancelled because the time is up, it gives up what still runs, so that those who wait get an answer.
        """
        self.paid_calls.shut()
        try:
            await asyncio.sleep(self.settings.server.drain_min_seconds)
            await self.paid_calls.ended()
        except asyncio.CancelledError:
            await self._give_up()
            raise

    async def _give_up(self) -> None:
        if late := await self.paid_calls.give_up():
            log.warning("paid calls given up as unknown", extra={"detail": str(late)})

    async def checks(self) -> dict[str, str]:
        """The state of every dependency by name: "ok", or what is wrong."""
        found = {"database": await self._database_state(), "redis": await self._redis_state()}
        if self.paid_calls.is_shut:
            found["process"] = "draining"
        return found

    def set_gauges(self) -> None:
        self.metrics.paid_in_flight.set(self.paid_calls.under_way)
        self.metrics.spool_bytes.set(self.spool.used)
        self.metrics.price_book_refused.set(self.prices.error is not None)

    async def _age_holds(self) -> None:
        aged = await self.aging.once()
        self.metrics.aged_holds.labels("unknown").inc(aged.unknown)
        self.metrics.aged_holds.labels("settled").inc(aged.settled)

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
        return "ok" if revision is not None and revision >= migrate.head() else "not migrated"

    async def _redis_state(self) -> str:
        try:
            await self.redis.ping()
        except (RedisError, OSError, TimeoutError):
            return "unreachable"
        return "ok"


@dataclass(frozen=True, slots=True)
class CachesFollow:
    """Makes this process forget what an admin has just changed; other processes notice within their caches' time."""

    authenticator: Authenticator
    pool: Pool

    async def announce(self, topic: Topic, ident: str) -> None:
        if topic == "key":
            self.authenticator.forget([ident])
        elif topic == "team":
            self.authenticator.forget()
        else:
            try:
                await self.pool.refresh()
            except errors.GatewayError as error:
                log.warning("the pool is refreshed later", extra={"reason": error.reason})


def build(settings: Settings, clock: Clock | None = None) -> Runtime:
    """Every collaborator, connected to nothing yet. Raises PriceBookError for a models.toml that cannot be used."""
    clock = clock or SystemClock()
    server, upstream, database_settings = settings.server, settings.upstream, settings.database
    database = Database(
        database_settings.url,
        pool_size=database_settings.pool_size,
        pool_wait=database_settings.pool_wait,
        statement_timeout=database_settings.statement_timeout,
        lock_timeout=database_settings.lock_timeout,
    )
    peppers = Peppers([secret.get_secret_value() for secret in settings.secrets.key_pepper])
    vault = Vault([secret.get_secret_value() for secret in settings.secrets.master_keys])
    spool = SpoolBudget(server.spool_max_bytes, server.spool_dir)
    client = UpstreamClient(
        upstream.base_url,
        spool,
        proxy=upstream.proxy,
        ca_file=None if upstream.ca_file is None else str(upstream.ca_file),
        max_connections=settings.upstream_connections,
        connect_timeout=upstream.connect_timeout,
        pool_wait=upstream.pool_wait,
    )
    metrics = Metrics()
    pool = Pool(database, vault, clock, reads_per_second=upstream.reads_per_second)
    dispatcher = Dispatcher(pool, client, clock, upstream.read_timeout)
    ledger = Ledger(database)
    registry, pace = Registry(database), Pace(settings.credits.task_max_age)
    reader = TaskReader(
        registry, ledger, dispatcher, clock, settings.cache.task_unfinished, pace=pace, metrics=metrics
    )
    authenticator = Authenticator(database, peppers, clock, settings.cache.principal)
    bootstrap = settings.admin.bootstrap_token
    return Runtime(
        settings=settings,
        clock=clock,
        metrics=metrics,
        database=database,
        redis=_redis(settings),
        spool=spool,
        client=client,
        pool=pool,
        dispatcher=dispatcher,
        models=ModelList(pool, dispatcher, clock, settings.cache.models_fresh, settings.cache.models_stale),
        prices=_prices(settings),
        ledger=ledger,
        reader=reader,
        reconciler=Reconciler(
            registry,
            reader,
            pool,
            pace,
            metrics=metrics,
            clock=clock,
            reads_per_second=upstream.reads_per_second,
            lease=upstream.read_timeout + LEASE_SECONDS,
        ),
        aging=Aging(database, _ages(settings)),
        paid_calls=PaidCalls(server.max_paid_in_flight),
        authenticator=authenticator,
        admin_tokens=AdminTokens(
            database, peppers, None if bootstrap is None else bootstrap.get_secret_value()
        ),
        admin_api=AdminApi(
            database=database,
            peppers=peppers,
            vault=vault,
            clock=clock,
            changed=CachesFollow(authenticator, pool),
        ),
    )


def _ages(settings: Settings) -> Ages:
    upstream, credit = settings.upstream, settings.credits
    timeout = max(upstream.sync_timeout, upstream.submit_timeout)
    return Ages(
        longest_call=longest_call(timeout, upstream.pool_wait, SENDS),
        task_max_age=credit.task_max_age,
        settle_unknown_after=credit.settle_unknown_after,
    )


def _prices(settings: Settings) -> PriceFile:
    credit = settings.credits
    default = credit.default_hold if credit.unpriced == "hold_default" else None
    return PriceFile(settings.config_dir / "models.toml", None if default is None else from_decimal(default))


def _redis(settings: Settings) -> Redis:
    options = settings.redis
    return Redis.from_url(
        options.url,
        socket_connect_timeout=options.connect_timeout,
        socket_timeout=options.timeout,
        retry=None,
    )


async def _every(seconds: float, action: Callable[[], Awaitable[None]], *, at_once: bool = False) -> None:
    """Runs `action` for ever; a failure is logged and tried again next time."""
    while True:
        if not at_once:
            await asyncio.sleep(seconds)
        at_once = False
        try:
            await action()
        except errors.GatewayError as error:
            log.warning("background work failed", extra={"reason": error.reason})
        except Exception:
            log.exception("background work failed")


async def _cancel(loops: list[asyncio.Task[None]]) -> None:
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)
