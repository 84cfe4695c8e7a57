"""The loop that raises and resolves: one process at a time judges for all, each for what only it can know.

An alert and its deliveries are written in one transaction, so a process that is killed has done both or neither, and
what it has not done the next one does. The log line and the counter come after it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.alerts import deliveries, records, rules, snapshot
from gateway.alerts.facts import Finding, OwnFacts
from gateway.alerts.records import Alert
from gateway.clock import Clock
from gateway.db.engine import Database
from gateway.telemetry import Metrics

log = logging.getLogger("gateway.alerts")

MOST_AT_ONCE = 500  # raised in one pass; the next pass raises the rest
KEPT_DAYS = 90
FORGET_SECONDS = 3600.0
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}


@dataclass(frozen=True, slots=True)
class Changes:
    """What one pass has raised and resolved."""

    raised: tuple[Alert, ...] = ()
    resolved: tuple[Alert, ...] = ()


class Evaluator:
    """`thresholds` in percent, `every` the seconds between two passes; `news` is called when there is something to
    deliver."""

    def __init__(
        self,
        database: Database,
        *,
        metrics: Metrics,
        clock: Clock,
        thresholds: Sequence[int] = (50, 80, 95, 100),
        every: float = 5.0,
        news: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock
        self._thresholds = tuple(thresholds)
        # A process says once in a pass that it refuses the file: silence for less than some passes says nothing.
        quiet = max(rules.QUIET["price_book_error"], 4 * every)
        self._quiet = {**rules.QUIET, "price_book_error": quiet}
        self._news = news
        self._forget_at = 0.0

    async def once(self, own: OwnFacts) -> Changes:
        """One pass, with what this process alone knows. Raises GatewayError 503 when Postgres cannot be asked."""
        async with self._database.transaction() as connection:
            alone = bool(await connection.scalar(_ALONE))
            changes = await (self._judge if alone else self._own_words)(connection, own)
            counts = await records.counts(connection)
        self._tell(changes)
        self._metrics.set_open_alerts(counts)
        if alone and self._clock.monotonic() >= self._forget_at:
            self._forget_at = self._clock.monotonic() + FORGET_SECONDS
            await self._forget()
        return changes

    async def _judge(self, connection: AsyncConnection, own: OwnFacts) -> Changes:
        seen = await snapshot.read(connection, own, self._thresholds)
        found = rules.findings(seen, self._thresholds)
        ruling = rules.judge(found, await records.open_now(connection), seen.now, self._quiet)
        raised = await self._note(connection, [*ruling.raised[:MOST_AT_ONCE], *ruling.refreshed])
        await records.seen(connection, ruling.seen)
        resolved = await records.resolve(connection, ruling.resolved)
        await deliveries.enqueue(connection, "alert.resolved", resolved)
        return Changes(raised, tuple(resolved))

    async def _own_words(self, connection: AsyncConnection, own: OwnFacts) -> Changes:
        return Changes(await self._note(connection, rules.of_process(own)))

    async def _note(self, connection: AsyncConnection, found: Sequence[Finding]) -> tuple[Alert, ...]:
        raised = await records.note(connection, found)
        await deliveries.enqueue(connection, "alert.raised", raised)
        return tuple(raised)

    def _tell(self, changes: Changes) -> None:
        for alert in changes.raised:
            self._metrics.alerts_raised.labels(alert.kind).inc()
            log.log(LEVELS[alert.severity], "alert raised", extra=_fields(alert))
        for alert in changes.resolved:
            log.info("alert resolved", extra=_fields(alert))
        if changes.raised or changes.resolved:
            self._news()

    async def _forget(self) -> None:
        async with self._database.transaction() as connection:
            gone = await records.forget(connection, KEPT_DAYS) + await deliveries.forget(
                connection, KEPT_DAYS
            )
        if gone:
            log.info("old alerts deleted", extra={"detail": str(gone)})


def _fields(alert: Alert) -> dict[str, Any]:
    return {"reason": alert.kind, "team": alert.detail.get("team"), "detail": alert.summary}


_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtextextended('gateway alerts', 0))")
