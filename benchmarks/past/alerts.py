"""The alerts: those the gateway's own rules find in this history now, some that are over, and their deliveries."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import psycopg

from benchmarks.past.calls import Call, Scene, Task
from benchmarks.past.cast import uuid7
from benchmarks.past.rows import copy
from benchmarks.past.standing import Counter
from gateway.alerts import messages, rules
from gateway.alerts.deliveries import data_of
from gateway.alerts.facts import CostNews, Finding, KeyHealth, QuotaUse, Snapshot, UnknownHolds
from gateway.alerts.messages import Event
from gateway.alerts.records import Alert
from gateway.pool.vault import Vault

THRESHOLDS = (50, 80, 95, 100)  # as shipped
URL = "https://alerts.example.com/hooks/pixapi"
OLDEST = timedelta(days=30)  # of resolved ones


@dataclass(frozen=True, slots=True)
class Raised:
    """An alert as its row is; `mark` as the rules have it."""

    alert: Alert
    mark: str


def alerts(scene: Scene, counters: Sequence[Counter], calls: Sequence[Call]) -> list[Raised]:
    """Open and resolved ones, oldest first."""
    now = scene.span.now
    found = [
        _raised(scene, finding, _since(finding, calls, now), None)
        for finding in rules.findings(_snapshot(scene, calls), THRESHOLDS)
    ]
    for counter in counters:
        ends = counter.period.ends_at
        if now - ends < OLDEST:
            found += [
                _raised(scene, finding, at, ends if ends < now else None)
                for finding, at in _of_quota(counter, min(now, ends))
                if ends > now or counter.quota.plan.period != "day"
            ]
    found += [_raised(scene, finding, at, ended) for finding, at, ended in _over(scene)]
    return sorted(found, key=lambda one: one.alert.id)


def _of_quota(counter: Counter, until: datetime) -> Iterator[tuple[Finding, datetime]]:
    """What is raised about a quota in one period, in the words of its moment."""
    moments = {mark: counter.reached(-(-counter.limit * mark // 100)) for mark in THRESHOLDS}
    for mark, at in moments.items():
        if at is not None:
            found = rules.findings(Snapshot(now=at, quotas=(_use(counter, at),)), [mark])
            yield from ((one, at) for one in found if one.firm and one.kind == "quota_threshold")
    at = counter.period.starts_at
    first: tuple[Finding, datetime] | None = None
    while (at := at + (counter.period.ends_at - counter.period.starts_at) / 30) < until:
        found = rules.findings(Snapshot(now=at, quotas=(_use(counter, at),)), [])
        firm = [one for one in found if one.firm]
        first = None if not firm else first or (firm[0], at)
    if first is not None:
        yield first


def write(
    connection: psycopg.Connection[Any], scene: Scene, found: Sequence[Raised], vault: Vault | None
) -> UUID:
    """The alerts, a webhook, and its deliveries in every state; the webhook's id. An alert that is open already is
    left as it is."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO alerts (id, kind, severity, subject, mark, summary, detail, raised_at, seen_at, resolved_at) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [_row(one, scene.span.now) for one in found],
        )
    known = {
        row[0]
        for row in connection.execute(
            "SELECT id FROM alerts WHERE id = ANY (%s)", [[one.alert.id for one in found]]
        )
    }
    made = scene.span.at(0.5)
    webhook = uuid7(scene.chance, made)
    secret = messages.new_secret(scene.chance.randbytes(32))
    sealed = b"" if vault is None else vault.seal(webhook, secret)
    copy(
        connection, "webhooks", "id url format secret created_at", [(webhook, URL, "standard", sealed, made)]
    )
    told = [one.alert for one in found if one.alert.id in known and one.alert.raised_at > made]
    columns = (
        "id webhook_id alert_id event body state tries next_try_at last_status last_error last_tried_at delivered_at "
        "created_at"
    )
    copy(connection, "alert_deliveries", columns, _deliveries(scene, webhook, told))
    return webhook


def _snapshot(scene: Scene, calls: Sequence[Call]) -> Snapshot:
    """What there is now besides quotas."""
    unknown = [call.unknown_at for call in calls if call.state == "unknown" and call.unknown_at is not None]
    return Snapshot(
        now=scene.span.now,
        unknown=UnknownHolds(count=len(unknown), oldest=min(unknown)) if unknown else None,
        costs=tuple(_costs(calls, scene.span.now)),
    )


def _use(counter: Counter, at: datetime) -> QuotaUse:
    settled, held = counter.standing(at)
    quota = counter.quota
    return QuotaUse(
        id=quota.id,
        team=counter.team.slug,
        key_id=quota.line,
        period=quota.plan.period,
        limit=counter.limit,
        settled=settled,
        held=held,
        enforce=quota.plan.enforce,
        starts_at=counter.period.starts_at,
        ends_at=counter.period.ends_at,
    )


def _costs(calls: Sequence[Call], now: datetime) -> list[CostNews]:
    """Odd costs since yesterday by kind, model and day, as the gateway looks for them."""
    since = (now - timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    found: dict[tuple[str, str, str], CostNews] = {}
    for call in sorted(calls, key=lambda call: call.ended_at or now):
        task, at = call.task, call.ended_at
        if task is None or at is None or at < since or task.status != "completed":
            continue
        kind = _odd(call, task)
        if kind is None:
            continue
        day = at.astimezone(UTC).date().isoformat()
        first = CostNews(
            kind=kind,
            model=call.wish.model,
            day=day,
            count=0,
            task_id=task.id,
            cost=task.cost,
            charge=call.price.credits,
            quote=call.quote,
        )
        news = found.get((kind, call.wish.model, day), first)
        found[kind, call.wish.model, day] = replace(news, count=news.count + 1)
    return list(found.values())


def _odd(call: Call, task: Task) -> Literal["odd_cost", "price_drift"] | None:
    if task.cost is None:
        return "odd_cost"
    return "price_drift" if task.cost < call.price.credits or task.cost > call.quote else None


def _since(finding: Finding, calls: Sequence[Call], now: datetime) -> datetime:
    """When it will have been raised."""
    if finding.kind in ("odd_cost", "price_drift"):
        task = finding.detail["task_id"]
        return next(call.ended_at or now for call in calls if call.task is not None and call.task.id == task)
    return datetime.fromisoformat(finding.detail["oldest"]).astimezone(UTC)


def _over(scene: Scene) -> Iterator[tuple[Finding, datetime, datetime]]:
    """What is over: a key that was off, trouble with prices and with reads."""
    off = KeyHealth(
        id=scene.cast.pool[1].id,
        label=scene.cast.pool[1].label,
        account=scene.cast.pool[1].plan.account,
        state="refused",
        state_reason="refused by Pixapi, its model list too",
    )
    well = KeyHealth(id=scene.cast.pool[0].id, label="", account="", state="active")
    at = scene.span.at(0.88)
    problem = 'models."gpt-image-2".hold: must be at least credits'
    snapshots = (
        (Snapshot(now=at, keys=(well, off)), at, timedelta(hours=2, minutes=11)),
        (Snapshot(now=at, lag=74.0), scene.span.at(0.91), timedelta(minutes=6)),
        (
            Snapshot(now=at, own=replace(Snapshot(now=at).own, price_book_problems=(problem,))),
            scene.span.at(0.95),
            timedelta(minutes=19),
        ),
    )
    for snapshot, begun, lasted in snapshots:
        for finding in rules.findings(snapshot, THRESHOLDS):
            yield finding, begun, begun + lasted


def _raised(scene: Scene, finding: Finding, at: datetime, ended: datetime | None) -> Raised:
    alert = Alert(
        id=uuid7(scene.chance, at),
        kind=finding.kind,
        severity=finding.severity,
        subject=finding.subject,
        summary=finding.summary,
        detail=dict(finding.detail),
        raised_at=at,
        resolved_at=ended,
    )
    return Raised(alert, finding.mark)


def _row(one: Raised, now: datetime) -> Sequence[object]:
    alert = one.alert
    return (
        alert.id,
        alert.kind,
        alert.severity,
        alert.subject,
        one.mark,
        alert.summary,
        json.dumps(alert.detail),
        alert.raised_at,
        alert.resolved_at or now,
        alert.resolved_at,
    )


def _deliveries(scene: Scene, webhook: UUID, told: Sequence[Alert]) -> Iterator[Sequence[object]]:
    """One for each beginning and end: nearly all arrived, one was given up, the last waits for its next try."""
    events: list[tuple[datetime, Event, Alert]] = []
    for alert in told:
        events.append((alert.raised_at, "alert.raised", replace(alert, resolved_at=None)))
        if alert.resolved_at is not None:
            events.append((alert.resolved_at, "alert.resolved", alert))
    events.sort(key=lambda one: one[0])
    for number, (at, event, alert) in enumerate(events):
        body = messages.body("standard", event, at, data_of(alert))
        tried = at + timedelta(seconds=scene.chance.uniform(0.2, 2))
        what: tuple[object, ...] = ("delivered", 1, tried, 204, None, tried, tried)
        if number == len(events) - 1:
            soon, tried = (
                scene.span.now + timedelta(hours=1, minutes=40),
                scene.span.now - timedelta(minutes=12),
            )
            what = ("pending", 6, soon, None, "no answer within 10 s", max(tried, at), None)
        elif number == len(events) // 2:
            tried = at + timedelta(hours=7, minutes=40)
            what = ("failed", messages.MOST_TRIES, tried, 503, "answered 503", tried, None)
        elif number % 7 == 3:
            tried = at + timedelta(seconds=36)
            what = ("delivered", 3, tried, 200, None, tried, tried)
        yield (uuid7(scene.chance, at), webhook, alert.id, event, body, *what, at)
