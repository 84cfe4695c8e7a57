"""Webhooks and deliveries over the admin API and by command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.main import command_line
from tests.integration.admin.conftest import Admin

URL = "https://hooks.example.com/services/T0/hidden"
CONFIG = Path(__file__).parents[3] / "config"


async def test_a_webhook_from_first_to_last(admin: Admin) -> None:
    made = await admin.ok("POST", "/webhooks", {"url": URL, "kinds": ["odd_cost", "odd_cost"]})
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made["kinds"] == ["odd_cost"]
    assert (made["format"], made["enabled"]) == ("standard", True)
    assert (await admin.ok("GET", "/webhooks"))["data"][0] == made
    seen = await admin.http.get("/admin/api/webhooks", headers=admin.viewer)
    assert seen.json()["data"][0]["url"] == "https://hooks.example.com/…"

    path = f"/webhooks/{made['id']}"
    tested = await admin.ok("POST", f"{path}/test")
    assert (tested["event"], tested["state"], tested["tries"]) == ("test", "pending", 0)
    changed = await admin.ok("PATCH", path, {"kinds": None, "enabled": False, "url": URL + "2"})
    assert (changed["kinds"], changed["enabled"], changed["disabled_reason"]) == (None, False, "by bootstrap")
    assert await admin.ok("PATCH", path, {"enabled": False}) == changed
    [given_up] = (await admin.ok("GET", "/alert-deliveries", webhook=made["id"], state="failed"))["data"]
    assert (given_up["id"], given_up["next_try_at"]) == (tested["id"], None)
    for call in (f"{path}/test", f"/alert-deliveries/{tested['id']}/redeliver"):
        assert (await admin.refused("POST", call))[:2] == (409, "webhook_disabled")
    await admin.ok("PATCH", path, {"enabled": True})
    again = await admin.ok("POST", f"/alert-deliveries/{tested['id']}/redeliver")
    assert (again["state"], again["message_id"]) == ("pending", tested["message_id"])
    await admin.ok("DELETE", path)
    assert (await admin.refused("PATCH", path, {"enabled": True}))[:2] == (404, "webhook_not_found")

    entries = await admin.audit(subject_type="webhook", subject_id=made["id"])
    assert [entry["action"].removeprefix("webhook.") for entry in entries] == [
        "remove", "delivery.redeliver", "update", "update", "test", "add",
    ]  # fmt: skip
    assert "hidden" not in json.dumps(entries)
    assert secret not in json.dumps(entries)


async def test_wrong_fields_are_named(admin: Admin) -> None:
    body = {"url": "http://169.254.169.254/", "format": "xml", "kinds": ["odd_costs"], "secret": "x"}
    status, reason, message = await admin.refused("POST", "/webhooks", body)
    assert (status, reason) == (400, "invalid_fields")
    for part in (
        "url: must not be a link-local",
        "format: must be one of",
        "kinds: 'odd_costs' is no kind",
        "secret: ",
    ):
        assert part in message
    assert (await admin.refused("POST", "/webhooks/nonsense/test"))[:2] == (404, "webhook_not_found")
    assert (await admin.refused("POST", "/alert-deliveries/nonsense/redeliver"))[:2] == (
        404,
        "delivery_not_found",
    )
    assert (await admin.refused("GET", "/alerts", state="raised"))[0] == 400
    assert (await admin.ok("GET", "/status"))["alerts"] == []


def test_by_command(module_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    environment = {
        "GATEWAY_DATABASE__URL": module_database_url,
        "GATEWAY_REDIS__URL": "redis://127.0.0.1:1/0",
        "GATEWAY_SECRETS__MASTER_KEYS": "command-line-master-q7Zr2Lx9Wv4Tn8Kd3Hs6",
        "GATEWAY_SECRETS__KEY_PEPPER": "command-line-pepper-m5Yb1Gc8Jf0Pa3Ue7Ri2",
        "GATEWAY_CONFIG_DIR": str(CONFIG),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def ok(*arguments: str) -> dict[str, object]:
        result = CliRunner().invoke(command_line(), [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        found: dict[str, object] = json.loads(result.stdout)
        return found

    made = ok("webhooks", "add", "--url", URL, "--kinds", "odd_cost,price_drift")
    assert made["kinds"] == ["odd_cost", "price_drift"]
    ident = str(made["id"])
    tested = ok("webhooks", "test", ident)
    changed = ok("webhooks", "update", ident, "--kinds", "none", "--format", "slack")
    assert (changed["kinds"], changed["format"]) == (None, "slack")
    assert [row["id"] for row in ok("webhooks", "list")["data"]] == [ident]  # type: ignore[attr-defined]
    assert ok("deliveries", "redeliver", "--id", str(tested["id"]))["id"] == tested["id"]
    listed = ok("deliveries", "list", "--webhook", ident, "--state", "pending")["data"]
    assert [row["id"] for row in listed] == [tested["id"]]  # type: ignore[attr-defined]
    assert ok("alerts", "list", "--state", "open")["data"] == []
    assert CliRunner().invoke(command_line(), ["webhooks", "list"]).output.startswith("url\tformat\tkinds")
    assert ok("webhooks", "remove", ident, "--yes")["id"] == ident
