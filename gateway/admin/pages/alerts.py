"""Alerts: what was found, and the webhooks that are told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.admin.api.answers import AlertAnswer
from gateway.admin.pages import details, tables
from gateway.admin.pages.details import Line
from gateway.admin.pages.given import NONE, NOTHING_TYPED, Problems, Typed, confirms, problems_of
from gateway.admin.pages.overview import place_of
from gateway.admin.pages.page import Answer, Goto, Html, PageCall
from gateway.alerts import webhooks
from gateway.alerts.facts import KINDS
from gateway.alerts.webhooks import Webhook
from gateway.errors import GatewayError
from gateway.pages.display import Text

HOME = "/admin/alerts"
STATES = ("open", "resolved", "all")
FIELDS = ("url", "format", "kinds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An alert, its details in lines, and the page where something can be done about it."""

    alert: AlertAnswer
    lines: tuple[Line, ...]
    link: str


async def listing(call: PageCall) -> Answer:
    if call.query.get("format") == "csv":
        return await tables.download(call, "alerts", "/alerts", _narrow(_state(call)), _COLUMNS)
    return await page(call)


async def add(call: PageCall) -> Answer:
    """The secret that signs the messages is in this answer and nowhere else."""
    ticked = list(call.several.get("kinds", ()))
    body: dict[str, Any] = {"url": call.form.get("url", ""), "format": call.form.get("format", "standard")}
    if ticked and set(ticked) != set(KINDS):
        body["kinds"] = ticked
    try:
        webhook = await call.change("POST", "/webhooks", body)
    except GatewayError as error:
        return await page(call, problems_of(error, FIELDS))
    return Html(
        template="webhook_added.html",
        once=True,
        values={"webhook": webhook, "host": urlsplit(webhook.url).netloc},
    )


async def enable(call: PageCall) -> Goto:
    await call.change("PATCH", "/webhooks/{id}", {"enabled": True}, id=call.params["id"])
    return Goto(HOME, done="webhook-enabled")


async def test(call: PageCall) -> Goto:
    await call.change("POST", "/webhooks/{id}/test", id=call.params["id"])
    return Goto(f"{HOME}/deliveries?webhook={call.params['id']}", done="webhook-tested")


async def confirm_disable(call: PageCall) -> Html:
    return _confirm("webhook_disable.html", await _find(call))


async def disable(call: PageCall) -> Answer:
    webhook = await _find(call)
    if not confirms(call.form, host_of(webhook)):
        return _confirm("webhook_disable.html", webhook, wrong=True)
    await call.change("PATCH", "/webhooks/{id}", {"enabled": False}, id=str(webhook.id))
    return Goto(HOME, done="webhook-disabled")


async def confirm_remove(call: PageCall) -> Html:
    return _confirm("webhook_remove.html", await _find(call))


async def remove(call: PageCall) -> Answer:
    webhook = await _find(call)
    if not confirms(call.form, host_of(webhook)):
        return _confirm("webhook_remove.html", webhook, wrong=True)
    await call.change("DELETE", "/webhooks/{id}", id=str(webhook.id))
    return Goto(HOME, done="webhook-removed")


async def page(call: PageCall, problems: Problems = NONE) -> Html:
    """Alerts and webhooks; with `problems`, the form of a new webhook is shown again."""
    state = _state(call)
    query = _narrow(state) | {name: call.query[name] for name in ("after",) if name in call.query}
    found = await call.ask("/alerts", query)
    refused = problems is not NONE
    changes = await call.ask("/audit", {"subject_type": "webhook", "limit": 1})
    values: dict[str, Any] = {
        "listing": found,
        "alerts": [_shown(one) for one in found.data],
        "state": state,
        "states": STATES,
        "webhooks": (await call.ask("/webhooks", {"limit": 200})).data,
        "changes": changes.data,
        "kinds": kind_names(call.text),
        "ticked": set(call.several.get("kinds", ())) if refused else set(KINDS),
        "form": Typed(call.form) if refused else NOTHING_TYPED,
        "problems": problems,
        "adding": refused,
    }
    return Html(template="alerts.html", values=values, status=400 if refused else 200)


def kind_names(text: Text) -> dict[str, str]:
    """What each kind of alert is about, in words."""
    return {
        "quota_threshold": text("Use of a quota"),
        "quota_projected_overrun": text("A quota will not last"),
        "upstream_key_off": text("An upstream key is off"),
        "upstream_key_exhausted": text("An upstream key has no credits"),
        "upstream_keys_all_resting": text("Every upstream key rests"),
        "hold_unknown": text("The outcome of calls is unknown"),
        "price_book_error": text("The price file was refused"),
        "price_drift": text("Pixapi charges other prices"),
        "odd_cost": text("Pixapi named no usable cost"),
        "reconciler_behind": text("Tasks are read late"),
        "partitions_missing": text("A month has no partition"),
    }


def host_of(webhook: Webhook) -> str:
    """What has to be typed to confirm: the host of the address, which viewers may see too."""
    return urlsplit(webhook.url).netloc


def _state(call: PageCall) -> str:
    asked = call.query.get("state", "open")
    return asked if asked in STATES else "open"


def _narrow(state: str) -> dict[str, str]:
    return {} if state == "all" else {"state": state}


def _shown(alert: AlertAnswer) -> Shown:
    return Shown(alert=alert, lines=tuple(details.lines(alert.detail)), link=place_of(alert))


async def _find(call: PageCall) -> Webhook:
    async with call.dashboard.api.database.autocommit() as connection:
        return await webhooks.find(connection, call.params["id"])


def _confirm(template: str, webhook: Webhook, *, wrong: bool = False) -> Html:
    values = {"webhook": webhook, "host": host_of(webhook), "wrong": wrong}
    return Html(template=template, values=values, status=400 if wrong else 200)


_COLUMNS: list[tables.Column] = [
    ("raised_at", lambda alert: alert.raised_at),
    ("resolved_at", lambda alert: alert.resolved_at),
    ("state", lambda alert: alert.state),
    ("severity", lambda alert: alert.severity),
    ("kind", lambda alert: alert.kind),
    ("subject", lambda alert: alert.subject),
    ("summary", lambda alert: alert.summary),
    ("detail", lambda alert: details.sentence(alert.detail)),
    ("id", lambda alert: alert.id),
]
