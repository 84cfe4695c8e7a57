"""Alerts, webhooks and deliveries on pages."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from gateway.ids import uuid7
from tests.integration.admin.pages.conftest import Dashboard, text_of

_NUMBERS = itertools.count()
HOSTILE = "<img src=x>"
FORM = {"content-type": "application/x-www-form-urlencoded"}


async def alert(dashboard: Dashboard, *, resolved: bool = False) -> str:
    """The summary of a new alert."""
    summary = f"{HOSTILE} number {next(_NUMBERS)}"
    await dashboard.site.sql(
        "INSERT INTO alerts (id, kind, severity, subject, mark, summary, detail, resolved_at)"
        " VALUES (%(id)s, 'quota_threshold', 'warning', 'quota:1', %(id)s, %(summary)s,"
        ' \'{"team": "shop", "limit": "10", "enforce": true}\', CASE WHEN %(resolved)s THEN now() END)',
        id=uuid7(),
        summary=summary,
        resolved=resolved,
    )
    return summary


async def webhook(dashboard: Dashboard, **fields: object) -> dict[str, Any]:
    """A new webhook."""
    url = f"https://hooks{next(_NUMBERS)}.example/secret-path"
    made: dict[str, Any] = await dashboard.api("POST", "/webhooks", {"url": url, **fields})
    return made


async def test_open_and_resolved_ones_apart(dashboard: Dashboard) -> None:
    running, over = await alert(dashboard), await alert(dashboard, resolved=True)
    for query, shown, hidden in (({}, running, over), ({"state": "resolved"}, over, running)):
        text = await dashboard.page("/alerts", 200, **query)
        assert shown in text
        assert hidden not in text
        assert HOSTILE not in await dashboard.source("/alerts", 200, **query)
    both = await dashboard.page("/alerts", state="all")
    assert running in both
    assert over in both
    assert "team shop limit 10 enforce true" in both
    csv = await dashboard.source("/alerts", state="all", format="csv")
    assert "team: shop; limit: 10; enforce: true" in csv


async def test_a_webhook_is_added_with_some_kinds(dashboard: Dashboard) -> None:
    fields = {"url": "https://one.example/x", "format": "standard", "kinds": ["odd_cost", "price_drift"]}
    answer = await dashboard.admin.post("/admin/alerts/webhooks", data=fields)
    assert answer.status_code == 200
    assert "whsec_" in answer.text
    assert "This is the only time its secret is shown." in text_of(answer.text)
    stored = (await dashboard.api("GET", "/webhooks"))["data"][0]
    assert stored["kinds"] == ["odd_cost", "price_drift"]
    source = await dashboard.source("/alerts")
    assert "whsec_" not in source
    assert "https://one.example/…" in source, "viewers see the host alone"
    assert "https://one.example/x" not in source


async def test_every_kind_is_no_restriction(dashboard: Dashboard) -> None:
    page = await dashboard.admin.get("/admin/alerts")
    kinds = [part.split('"')[0] for part in page.text.split('name="kinds" value="')[1:]]
    await dashboard.admin.post(
        "/admin/alerts/webhooks", data={"url": "https://all.example", "format": "slack", "kinds": kinds}
    )
    stored = (await dashboard.api("GET", "/webhooks"))["data"][0]
    assert (stored["url"], stored["format"], stored["kinds"]) == ("https://all.example", "slack", None)


async def test_a_wrong_webhook_is_shown_again(dashboard: Dashboard) -> None:
    fields = {"url": "ftp://wrong.example", "format": "slack", "kinds": ["odd_cost"]}
    answer = await dashboard.admin.post("/admin/alerts/webhooks", data=fields)
    assert answer.status_code == 400
    assert "must be an address like https://host/path" in text_of(answer.text)
    assert 'value="ftp://wrong.example"' in answer.text
    assert answer.text.count(" checked") == 1


@pytest.mark.parametrize("what", ["disable", "remove"])
async def test_an_end_needs_the_host(dashboard: Dashboard, what: str) -> None:
    made = await webhook(dashboard)
    host, path = made["url"].split("/")[2], f"/alerts/webhooks/{made['id']}"
    assert f'data-name="{host}"' in (await dashboard.admin.get(f"/admin{path}/{what}")).text
    refused = await dashboard.post(f"{path}/{what}", name="else.example")
    assert refused.status_code == 400
    assert (await stored(dashboard, made["id"]))["enabled"] is True
    await dashboard.done(f"{path}/{what}", name=host)
    left = await stored(dashboard, made["id"])
    if what == "remove":
        assert left is None
    else:
        assert left["enabled"] is False
        await dashboard.done(f"{path}/enable")
        assert (await stored(dashboard, made["id"]))["enabled"] is True


async def test_a_test_message_and_once_more(dashboard: Dashboard) -> None:
    made = await webhook(dashboard)
    place = await dashboard.done(f"/alerts/webhooks/{made['id']}/test")
    assert place == f"/admin/alerts/deliveries?webhook={made['id']}&done=webhook-tested"
    listed = await dashboard.page("/alerts/deliveries", webhook=made["id"])
    assert "Test message" in listed
    assert "pending" in listed
    (sent,) = (await dashboard.api("GET", "/alert-deliveries", webhook=made["id"]))["data"]
    await dashboard.site.sql(
        "UPDATE alert_deliveries SET state = 'failed', tries = 8, last_error = %(said)s WHERE id = %(id)s",
        id=sent["id"],
        said=HOSTILE,
    )
    failed = await dashboard.admin.get("/admin/alerts/deliveries", params={"state": "failed"})
    assert HOSTILE not in failed.text
    assert "Send again" in failed.text
    await dashboard.done(f"/alerts/deliveries/{sent['id']}/redeliver")
    (again,) = (await dashboard.api("GET", "/alert-deliveries", webhook=made["id"]))["data"]
    assert (again["state"], again["message_id"]) == ("pending", sent["message_id"])
    assert sent["message_id"] in await dashboard.source("/alerts/deliveries", format="csv")


async def test_a_filter_that_finds_nothing_leads_back(dashboard: Dashboard) -> None:
    made = await webhook(dashboard)
    text = await dashboard.page("/alerts/deliveries", webhook=made["id"], state="failed")
    assert "There is no such delivery" in text
    assert "All deliveries" in text


async def test_a_viewer_changes_nothing(dashboard: Dashboard) -> None:
    made = await webhook(dashboard)
    source = await dashboard.source("/alerts")
    assert "<form" not in source.split('id="content"')[1]
    for path in (
        "webhooks",
        *(f"webhooks/{made['id']}/{what}" for what in ("test", "enable", "disable", "remove")),
    ):
        answer = await dashboard.viewer.post(f"/admin/alerts/{path}", data={"name": "x"}, headers=FORM)
        assert answer.status_code == 403, path
    assert (await stored(dashboard, made["id"]))["enabled"] is True


async def stored(dashboard: Dashboard, ident: str) -> Any:
    found = (await dashboard.api("GET", "/webhooks", limit="200"))["data"]
    return next((one for one in found if one["id"] == ident), None)
