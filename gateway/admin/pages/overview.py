"""The first page: what needs a person, what was spent and is left, what runs, and how the pool is."""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.admin.api.answers import AlertAnswer
from gateway.admin.pages import spending
from gateway.admin.pages.page import Html, PageCall
from gateway.admin.pages.spending import Wanted
from gateway.alerts import records
from gateway.alerts.records import Alert
from gateway.credits import overview
from gateway.credits.amount import to_decimal
from gateway.credits.daily import Daily, daily
from gateway.credits.usage import Range, Sums
from gateway.db.paging import PageOf
from gateway.pages.chart import LAYERS, projected
from gateway.pool import upstream_keys
from gateway.tasks import listing as tasks
from gateway.tasks.listing import TaskFilter

QUOTAS_SHOWN = 8
TASKS_SHOWN = 6
ALERTS_READ = 50
ATTENTION_SHOWN = 6
SEVERITIES = ("critical", "warning", "info")
# Where the thing an alert is about can be looked at.
PLACES = {
    "hold_unknown": "/admin/holds?state=unknown",
    "upstream_key_off": "/admin/upstream-keys",
    "upstream_key_exhausted": "/admin/upstream-keys",
    "upstream_keys_all_resting": "/admin/upstream-keys",
    "price_book_error": "/admin/prices",
    "price_drift": "/admin/prices",
}


@dataclass(frozen=True, slots=True)
class Attention:
    """One line of what needs a person."""

    alert: Alert
    link: str


async def show(call: PageCall) -> Html:
    """At most ten statements, all of them over little: tests/integration/admin/pages holds it to that."""
    now = call.view.now
    which = spending.wanted(call.query, now)
    async with call.dashboard.api.database.autocommit() as connection:
        found = await _found(connection, which)
        chart = await spending.drawn(connection, which, found, call.text)
        held = await overview.held_now(connection)
        quotas = await overview.fullest_quotas(connection, QUOTAS_SHOWN)
        alerts = await records.page(connection, "open", PageOf(ALERTS_READ))
        running = await tasks.page(connection, TaskFilter(ended=False), PageOf(TASKS_SHOWN))
        keys = await upstream_keys.page(connection, PageOf(50))
    values: dict[str, Any] = {
        "which": which,
        "chart": chart,
        "month": _month(found.days, which.today),
        "held": to_decimal(held.micro),
        "holds": held.held,
        "unknown": held.unknown,
        "quotas": quotas,
        "attention": attention(alerts.items)[:ATTENTION_SHOWN],
        "more_alerts": len(attention(alerts.items)) > ATTENTION_SHOWN or alerts.next is not None,
        "running": running,
        "keys": keys.items,
        "price_problems": () if call.dashboard.prices.error is None else call.dashboard.prices.error.problems,
    }
    return Html(template="overview.html", values=values)


def attention(alerts: Sequence[Alert]) -> list[Attention]:
    """What needs a person, the worst first; of one thing, such as a quota that has passed several marks, its worst."""
    ranked = sorted(alerts, key=lambda alert: SEVERITIES.index(alert.severity))
    worst = {(alert.kind, alert.subject): alert for alert in reversed(ranked)}
    return [
        Attention(alert, place_of(alert)) for alert in ranked if worst[alert.kind, alert.subject] is alert
    ]


def place_of(alert: Alert | AlertAnswer) -> str:
    """The page where something can be done about an alert."""
    team = alert.detail.get("team")
    if alert.kind.startswith("quota") and team:
        return f"/admin/teams/{team}"
    if alert.kind == "odd_cost" and "task_id" in alert.detail:
        return f"/admin/tasks/{alert.detail['task_id']}"
    if alert.subject.startswith("upstream-key:"):
        return f"/admin/upstream-keys/{alert.subject.removeprefix('upstream-key:')}"
    return PLACES.get(alert.kind, "/admin/alerts")


async def _found(connection: AsyncConnection, which: Wanted) -> Daily:
    """What every day has cost, of the range that is shown and of this month, and who spent most in that range."""
    start = min(which.start, which.today.replace(day=1))
    span = Range(start=start, end=max(which.end, which.today + timedelta(days=2)))
    return await daily(connection, span, which.by, LAYERS, ranked=Range(start=which.start, end=which.end))


def _month(days: Mapping[date, Sums], today: date) -> dict[str, Any]:
    first, after = today.replace(day=1), spending.next_month(today)
    month = {day: sums for day, sums in days.items() if first <= day < after}
    spent = {day: sums.credits for day, sums in month.items()}
    ahead = projected(spent, today, calendar.monthrange(today.year, today.month)[1])
    return {
        "today": to_decimal(spent.get(today, 0)),
        "so_far": to_decimal(sum(spent.values())),
        "requests": sum(sums.requests for sums in month.values()),
        "failed": sum(sums.failed for sums in month.values()),
        "projected": None if ahead is None else to_decimal(ahead),
    }
