"""Deliveries: what was sent to webhooks, what came of it, and once more."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from gateway.admin.pages import tables
from gateway.admin.pages.page import Answer, Goto, Html, PageCall
from gateway.alerts import records

FILTERS = ("webhook", "state")


async def listing(call: PageCall) -> Answer:
    narrow = {name: call.query[name] for name in FILTERS if name in call.query}
    if call.query.get("format") == "csv":
        return await tables.download(call, "deliveries", "/alert-deliveries", narrow, _COLUMNS)
    after = {name: call.query[name] for name in ("after",) if name in call.query}
    found = await call.ask("/alert-deliveries", narrow | after)
    webhooks = (await call.ask("/webhooks", {"limit": 200})).data
    async with call.dashboard.api.database.autocommit() as connection:
        told = await records.by_ids(connection, {one.alert_id for one in found.data if one.alert_id})
    values: dict[str, Any] = {
        "listing": found,
        "hosts": {one.id: urlsplit(one.url).netloc for one in webhooks},
        "alerts": told,
        "webhook": call.query.get("webhook", ""),
        "state": call.query.get("state", ""),
        "narrowed": bool(narrow),
    }
    return Html(template="deliveries.html", values=values)


async def redeliver(call: PageCall) -> Goto:
    await call.change("POST", "/alert-deliveries/{id}/redeliver", id=call.params["id"])
    return Goto("/admin/alerts/deliveries", done="redelivered")


_COLUMNS: list[tables.Column] = [
    ("created_at", lambda one: one.created_at),
    ("message_id", lambda one: one.message_id),
    ("webhook_id", lambda one: one.webhook_id),
    ("event", lambda one: one.event),
    ("alert_id", lambda one: one.alert_id),
    ("state", lambda one: one.state),
    ("tries", lambda one: one.tries),
    ("last_status", lambda one: one.last_status),
    ("last_error", lambda one: one.last_error),
    ("last_tried_at", lambda one: one.last_tried_at),
    ("next_try_at", lambda one: one.next_try_at),
    ("delivered_at", lambda one: one.delivered_at),
]
