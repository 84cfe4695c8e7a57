"""Alerts of two gateway processes: told once a crossing, to a receiver that refuses at first, and resolved after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.harness import Gateway, eventually
from tests.fakes.receiver import Receiver, receiving

MODEL = "gemini-2.5-flash-image"  # 2 credits an image, held and charged
ORDER = {"model": MODEL, "prompt": "A cup"}
PATH = "/v1/images/generations"
FAST = {"GATEWAY_ALERTS__EVERY": "0.2"}


@dataclass(frozen=True)
class Pair:
    """Two equal processes, what they are sent to, and the sandbox behind them."""

    gateway: Gateway
    other: str
    receiver: Receiver
    sandbox: httpx.Client
    secret: str
    webhook: str

    def deliveries(self, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.gateway.call(
            "GET", "/alert-deliveries", params={"limit": "200", **query}
        )["data"]
        return found

    def alerts(self, kind: str, state: str = "open") -> list[dict[str, Any]]:
        found = self.gateway.call("GET", "/alerts", params={"state": state, "limit": "200"})["data"]
        return [alert for alert in found if alert["kind"] == kind]

    @contextlib.contextmanager
    def team(self, name: str, limit: int) -> Iterator[list[httpx.Client]]:
        """A client of each process with a key of a new team with this monthly quota."""
        slug = self.gateway.team(name, quota={"period": "month", "limit": limit})["slug"]
        key = self.gateway.key(slug)
        with self.gateway.client(key) as one, self.gateway.client(key) as other:
            other.base_url = httpx.URL(self.other)
            yield [one, other]


@pytest.fixture(scope="module")
def pair(module_database_url: str, redis_url: str) -> Iterator[Pair]:
    with (
        harness.sandbox() as sandbox,
        harness.gateway(module_database_url, redis_url, sandbox.base, FAST) as gateway,
        harness.beside(gateway.environment) as other,
        httpx.Client(base_url=sandbox.base, trust_env=False, timeout=30) as control,
        receiving() as receiver,
    ):
        gateway.upstream_key("sk_alerts_0123456789abcdef", "alerts")
        webhook = gateway.call("POST", "/webhooks", json={"url": receiver.url})
        assert webhook["secret"].startswith("whsec_")
        pair = Pair(gateway, other.base, receiver, control, webhook["secret"], webhook["id"])
        with pair.team("Warm", 1_000_000) as clients:
            for client in clients:
                eventually(lambda client=client: client.post(PATH, json=ORDER).is_success)
        yield pair


def test_each_crossing_is_delivered_exactly_once(pair: Pair) -> None:
    pair.receiver.answers = [500]
    with pair.team("Crossing", 10) as clients:
        for number in range(5):
            assert clients[number % 2].post(PATH, json=ORDER).is_success
            if number == 3:  # 80 %
                eventually(lambda: len(_thresholds(pair)) == 2)
        assert clients[0].post(PATH, json=ORDER).status_code == 402

    def delivered() -> bool:
        found = [one for one in pair.deliveries() if one["event"] == "alert.raised"]
        return len(_thresholds(pair)) == 4 and all(one["state"] == "delivered" for one in found)

    eventually(delivered, 15, every=0.1)
    alerts = _thresholds(pair)
    assert sorted(alert["detail"]["threshold"] for alert in alerts) == [50, 80, 95, 100]
    told = [one for one in pair.receiver.accepted if one.json["data"].get("kind") == "quota_threshold"]
    assert sorted(one.json["data"]["id"] for one in told) == sorted(alert["id"] for alert in alerts)
    assert len({one.id for one in told}) == 4
    assert all(one.is_signed_with(pair.secret) for one in pair.receiver.messages)
    [refused] = [one for one in pair.receiver.messages if one.status == 500]
    assert [one.id for one in pair.receiver.accepted].count(refused.id) == 1
    assert [one["tries"] for one in pair.deliveries() if one["message_id"] == refused.id] == [2]
    status = pair.gateway.call("GET", "/status")
    assert {alert["id"] for alert in alerts} <= {alert["id"] for alert in status["alerts"]}
    for base in (pair.gateway.base, pair.other):
        text = pair.gateway.admin.get(f"{base}/metrics").raise_for_status().text
        assert 'gateway_alerts_open{kind="quota_threshold",severity="critical"} 1.0' in text


def _thresholds(pair: Pair) -> list[dict[str, Any]]:
    return [one for one in pair.alerts("quota_threshold") if one["detail"]["team"] == "crossing"]


def test_an_unknown_hold_is_told_and_so_is_its_end(pair: Pair) -> None:
    fault = {"name": "status", "value": "502", "path": PATH}
    pair.sandbox.post("/sandbox/faults", json=fault).raise_for_status()
    with pair.team("Unlucky", 100) as clients:
        assert clients[0].post(PATH, json=ORDER).status_code == 502
    [alert] = eventually(lambda: pair.alerts("hold_unknown"))
    assert alert["detail"]["count"] == 1
    [hold] = pair.gateway.call("GET", "/holds", params={"state": "unknown"})["data"]
    pair.gateway.call(
        "POST", f"/holds/{hold['id']}/resolve", json={"outcome": "release", "reason": "nothing was made"}
    )
    [resolved] = eventually(lambda: pair.alerts("hold_unknown", "resolved"))
    assert resolved["id"] == alert["id"]
    assert resolved["resolved_at"] > resolved["raised_at"]
    counts = pair.receiver.told
    eventually(lambda: counts()["alert.resolved", "hold_unknown"] == 1)
    assert counts()["alert.raised", "hold_unknown"] == 1


def test_a_test_message_and_its_repeat(pair: Pair) -> None:
    made = pair.gateway.call("POST", f"/webhooks/{pair.webhook}/test")

    def arrived() -> int:
        return [one.id for one in pair.receiver.accepted].count(made["message_id"])

    eventually(lambda: arrived() == 1)
    eventually(lambda: _state(pair, made["id"]) == "delivered")
    pair.gateway.call("POST", f"/alert-deliveries/{made['id']}/redeliver")
    eventually(lambda: arrived() == 2)
    message = pair.receiver.accepted[-1]
    assert message.json["type"] == "test"
    assert message.is_signed_with(pair.secret)


def _state(pair: Pair, delivery: str) -> str:
    return next(str(one["state"]) for one in pair.deliveries() if one["id"] == delivery)


def test_a_viewer_reads_and_changes_nothing(pair: Pair) -> None:
    token = pair.gateway.call("POST", "/admin-tokens", json={"name": "eyes", "role": "viewer"})["secret"]
    delivery = pair.deliveries()[0]["id"]
    headers = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{pair.gateway.base}/admin/api", headers=headers, trust_env=False) as viewer:
        for path in ("/alerts", "/alert-deliveries"):
            assert viewer.get(path).status_code == 200
        [webhook] = viewer.get("/webhooks").json()["data"]
        assert webhook["url"] == pair.receiver.url.removesuffix("hook") + "…"
        assert "secret" not in webhook
        for method, path in (
            ("POST", "/webhooks"),
            ("PATCH", f"/webhooks/{pair.webhook}"),
            ("POST", f"/webhooks/{pair.webhook}/test"),
            ("DELETE", f"/webhooks/{pair.webhook}"),
            ("POST", f"/alert-deliveries/{delivery}/redeliver"),
        ):
            assert viewer.request(method, path, json={}).status_code == 403
