"""Deliveries: one row for each message to each webhook, made with its alert and claimed by whoever sends it.

A claim lasts longer than a send, so what a killed process had claimed is sent by another; the id stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.alerts import messages, webhooks
from gateway.alerts.messages import Event
from gateway.alerts.records import Alert
from gateway.alerts.webhooks import Webhook
from gateway.db import audit
from gateway.db.paging import Keyset, Page, PageOf
from gateway.db.tables import NOW, alert_deliveries
from gateway.ids import lowest_uuid7, uuid7

DeliveryState = Literal["pending", "delivered", "failed"]
LEASE_SECONDS = 30.0  # beyond the longest send
SHARE = 2
LONGEST_ERROR = 500
_ROW = alert_deliveries.c
_ORDER = Keyset("alert_deliveries", _ROW.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message to a webhook; `next_try_at` means something while it is pending."""

    id: UUID
    webhook_id: UUID
    alert_id: UUID | None
    event: Event
    state: DeliveryState
    tries: int
    next_try_at: datetime
    last_status: int | None
    last_error: str | None
    last_tried_at: datetime | None
    delivered_at: datetime | None
    created_at: datetime

    @property
    def message_id(self) -> str:
        return messages.message_id(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What this process is to send now; it is try number `tries`."""

    id: UUID
    webhook_id: UUID
    url: str
    secret: bytes
    body: str
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of a try: `wait` seconds until the next one, None for none."""

    delivered: bool
    status: int | None = None
    error: str | None = None
    wait: float | None = None


_COLUMNS = [_ROW[field.name] for field in fields(Delivery)]


async def enqueue(connection: AsyncConnection, event: Event, alerts: Sequence[Alert]) -> int:
    """A delivery for each of these alerts to each webhook that wants its kind, in the caller's transaction; how
    many."""
    if not alerts:
        return 0
    items = [
        _item(webhook, event, alert)
        for webhook in await webhooks.enabled(connection)
        for alert in alerts
        if webhook.kinds is None or alert.kind in webhook.kinds
    ]
    if items:
        await connection.execute(_ENQUEUE, {"items": msgspec.json.encode(items).decode()})
    return len(items)


async def enqueue_test(connection: AsyncConnection, actor: str, webhook: str) -> Delivery:
    """A test message to this webhook; 404, and 409 when it is disabled."""
    found = await webhooks.find(connection, webhook, lock=True)
    _refuse_disabled(found)
    now = (await connection.execute(select(NOW))).scalar_one()
    row_id = uuid7()
    content = messages.body(found.format, "test", now, {"webhook": str(found.id)})
    statement = alert_deliveries.insert().values(id=row_id, webhook_id=found.id, event="test", body=content)
    delivery = _delivery((await connection.execute(statement.returning(*_COLUMNS))).one())
    await _record(connection, actor, "webhook.test", found.id, {"delivery": str(row_id)})
    return delivery


async def redeliver(connection: AsyncConnection, actor: str, delivery: str) -> Delivery:
    """Sends a message once more from the start, under its old id; 404, and 409 when its webhook is disabled.

    One that is pending is tried at once.
    """
    row_id = _id_in(delivery)
    webhook_id = await connection.scalar(select(_ROW.webhook_id).where(_ROW.id == row_id))
    if row_id is None or webhook_id is None:
        raise errors.not_found("There is no delivery with this id.", "delivery_not_found")
    _refuse_disabled(await webhooks.find(connection, str(webhook_id), lock=True))
    statement = alert_deliveries.update().where(_ROW.id == row_id)
    statement = statement.values(state="pending", tries=0, next_try_at=NOW, delivered_at=None)
    found = _delivery((await connection.execute(statement.returning(*_COLUMNS))).one())
    await _record(connection, actor, "delivery.redeliver", webhook_id, {"delivery": str(row_id)})
    return found


async def page(
    connection: AsyncConnection, webhook: str | None, state: DeliveryState | None, which: PageOf
) -> Page[Delivery]:
    """One page of all deliveries, of one webhook, or in one state; 404 without such a webhook."""
    query = select(*_COLUMNS)
    if webhook is not None:
        query = query.where(_ROW.webhook_id == (await webhooks.find(connection, webhook)).id)
    if state is not None:
        query = query.where(_ROW.state == state)
    return await _ORDER.read(connection, query, which, _delivery)


async def claim(connection: AsyncConnection, most: int) -> list[Claimed]:
    """What is due and nobody is sending, the longest due first, for `LEASE_SECONDS`; one statement.

    Of a webhook no more than `SHARE` are under way at once (in each process, at worst): a receiver that hangs holds up
    none but its own messages.
    """
    values = {"most": most, "share": SHARE, "lease": timedelta(seconds=LEASE_SECONDS)}
    return [Claimed(**row._mapping) for row in await connection.execute(_CLAIM, values)]


async def conclude(connection: AsyncConnection, claimed: Claimed, sent: Sent) -> bool:
    """Writes down what became of a try; whether it was still this one's to say."""
    again = sent.wait is not None
    values: dict[str, Any] = {
        "state": "delivered" if sent.delivered else "pending" if again else "failed",
        "leased_until": None,
        "last_status": sent.status,
        "last_error": None if sent.error is None else sent.error[:LONGEST_ERROR],
        "last_tried_at": NOW,
    }
    if sent.delivered:
        values["delivered_at"] = NOW
    if sent.wait is not None:
        values["next_try_at"] = func.now() + timedelta(seconds=sent.wait)
    statement = alert_deliveries.update().where(
        _ROW.id == claimed.id, _ROW.state == "pending", _ROW.tries == claimed.tries
    )
    return (await connection.execute(statement.values(**values))).rowcount == 1


async def forget(connection: AsyncConnection, days: int) -> int:
    """Deletes what was made longer ago and is not pending; tests have no alert to go with."""
    now = (await connection.execute(select(NOW))).scalar_one()
    old = _ROW.id < lowest_uuid7(now - timedelta(days=days))
    done = alert_deliveries.delete().where(old, _ROW.state != "pending")
    return (await connection.execute(done)).rowcount


def data_of(alert: Alert) -> dict[str, Any]:
    """An alert as a message holds it."""
    return {
        "id": str(alert.id),
        "kind": alert.kind,
        "severity": alert.severity,
        "state": alert.state,
        "subject": alert.subject,
        "summary": alert.summary,
        "detail": alert.detail,
        "raised_at": alert.raised_at.isoformat(),
        "resolved_at": None if alert.resolved_at is None else alert.resolved_at.isoformat(),
    }


def _item(webhook: Webhook, event: Event, alert: Alert) -> dict[str, Any]:
    at = alert.resolved_at or alert.raised_at
    return {
        "id": str(uuid7()),
        "webhook_id": str(webhook.id),
        "alert_id": str(alert.id),
        "event": event,
        "body": messages.body(webhook.format, event, at, data_of(alert)),
    }


def _refuse_disabled(webhook: Webhook) -> None:
    if not webhook.enabled:
        raise errors.conflict("The webhook is disabled; enable it first.", "webhook_disabled")


async def _record(
    connection: AsyncConnection, actor: str, action: str, webhook_id: UUID, detail: dict[str, Any]
) -> None:
    await audit.write(
        connection, actor=actor, action=action, subject=("webhook", str(webhook_id)), detail=detail
    )


def _id_in(text_: str) -> UUID | None:
    try:
        return UUID(text_)
    except ValueError:
        return None


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**row._mapping)


_ENQUEUE = text("""
INSERT INTO alert_deliveries (id, webhook_id, alert_id, event, body)
SELECT i.id, i.webhook_id, i.alert_id, i.event, i.body
FROM jsonb_to_recordset(CAST(:items AS jsonb)) AS i(id uuid, webhook_id uuid, alert_id uuid, event text, body text)
ON CONFLICT (alert_id, webhook_id, event) DO NOTHING
""")

# A try is counted when it begins: one that ends its process is not repeated for ever.
_CLAIM = text("""
UPDATE alert_deliveries d SET leased_until = now() + :lease, tries = d.tries + 1
FROM (
    SELECT one.id, w.url, w.secret FROM webhooks w CROSS JOIN LATERAL (
        SELECT p.id, p.next_try_at FROM alert_deliveries p
        WHERE p.webhook_id = w.id AND p.state = 'pending' AND p.next_try_at <= now()
          AND (p.leased_until IS NULL OR p.leased_until <= now())
        ORDER BY p.next_try_at
        LIMIT greatest(0, :share - (SELECT count(*) FROM alert_deliveries b
                                    WHERE b.webhook_id = w.id AND b.state = 'pending' AND b.leased_until > now()))
        FOR UPDATE SKIP LOCKED
    ) one
    ORDER BY one.next_try_at LIMIT :most
) due
WHERE d.id = due.id
RETURNING d.id, d.webhook_id, due.url, due.secret, d.body, d.tries
""")
