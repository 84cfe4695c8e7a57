"""Every request has an id, a log line and its client's address; nothing a client sends forges them."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.access.refusals import Refusal
from gateway.middleware.request_context import RequestContextMiddleware, client_address
from gateway.proxy.exchange import Exchange, exchange_of
from gateway.telemetry import Metrics
from tests.fakes.asgi import HOST, Header, Sent, call, http, ok
from tests.fakes.clock import FakeClock
from tests.fakes.principals import principal

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


class Rig:
    """The middleware above an app of the test, with its clock, metrics and log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.caplog = caplog
        caplog.set_level(logging.INFO, "gateway.access")

    async def call(self, scope: Scope, app: ASGIApp = ok, received: tuple[dict[str, Any], ...] = ()) -> Sent:
        middleware = RequestContextMiddleware(app, self.clock, self.metrics, PROXIES)
        return await call(middleware, scope, received)

    def line(self) -> dict[str, Any]:
        """The fields of the only log line."""
        (record,) = self.caplog.records
        return vars(record)

    def counted(self, route: str, method: str, status: str) -> float | None:
        labels = {"route": route, "method": method, "status": status}
        return self.metrics.registry.get_sample_value("gateway_requests_total", labels)


@pytest.fixture
def rig(caplog: pytest.LogCaptureFixture) -> Rig:
    return Rig(caplog)


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([b"my-request-0001"], True),
        ([b"a.b:c_d-e" * 14], True),
        ([], False),
        ([b"short"], True),
        ([b""], False),
        ([b"x" * 129], False),
        ([b"with space 1"], False),
        ([b"line\nbreak-forged"], False),
        ([b"caf\xe9-request"], False),
        ([b"my-request-0001", b"my-request-0001"], False),
    ],
)
async def test_one_sane_request_id_is_kept(rig: Rig, ids: list[bytes], kept: bool) -> None:
    sent = await rig.call(http(headers=[HOST, *((b"x-request-id", one) for one in ids)]))
    (found,) = sent.values(b"x-request-id")
    assert (found in ids) is kept
    assert kept or (found.startswith(b"req_") and len(found) == 36)
    assert rig.line()["request_id"] == found.decode()


async def test_the_answer_carries_what_was_learnt_and_its_own_headers(rig: Rig) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).answer_headers.append((b"x-credits-held", b"8"))
        await ok(scope, receive, send)

    sent = await rig.call(http(), app)
    assert (sent.values(b"x-own"), sent.values(b"x-credits-held"), sent.body) == ([b"1"], [b"8"], b"ok")


async def test_one_log_line_says_what_happened(rig: Rig) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        exchange.principal = principal()
        exchange.upstream_ms, exchange.attempts, exchange.cache = 1200, 1, "miss"
        scope["route"] = SimpleNamespace(path="/v1/tasks/{id}")
        rig.clock.forward(1.25)
        await ok(scope, receive, send)

    await rig.call(http(path="/v1/tasks/t1"), app)
    line = rig.line()
    expected = {
        "method": "GET", "path": "/v1/tasks/t1", "status": 200, "milliseconds": 1250.0, "upstream_ms": 1200,
        "team": "alpha", "key": "0123456789", "cache": "miss", "attempts": 1, "client": "192.0.2.1",
    }  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    assert rig.counted("/v1/tasks/{id}", "GET", "200") == 1
    own = rig.metrics.registry.get_sample_value("gateway_own_seconds_sum")
    assert own == pytest.approx(0.05)


async def test_a_path_without_a_route_makes_no_metric_of_its_own(rig: Rig) -> None:
    await rig.call(http(path="/wp-login.php"))
    assert rig.counted("unmatched", "GET", "200") == 1


async def test_a_client_that_left_is_499(rig: Rig) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"

    await rig.call(http(), app, ({"type": "http.disconnect"},))
    assert rig.line()["status"] == 499


async def test_a_defect_is_recorded_too(rig: Rig) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await rig.call(http(), app)
    assert rig.line()["status"] == 0


@pytest.mark.parametrize(
    ("messages", "complete"),
    [
        ([{"type": "http.request", "body": b"a", "more_body": True}], False),
        ([{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request"}], True),
        ([{"type": "http.disconnect"}], False),
    ],
)
async def test_it_knows_when_the_body_is_complete(
    rig: Rig, messages: list[dict[str, Any]], complete: bool
) -> None:
    seen: list[Exchange] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in messages:
            await receive()
        seen.append(exchange_of(scope))
        await ok(scope, receive, send)

    await rig.call(http("POST"), app, tuple(messages))
    assert seen[0].body_complete is complete


async def test_a_lifespan_passes(rig: Rig) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope == {"type": "lifespan"}

    await rig.call({"type": "lifespan"}, app)
    assert rig.caplog.records == []


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7, 10.9.9.9"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, "], "10.0.0.1"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.0.0.1"),
        ("10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("2001:db8::1", ["2001:4860::8"], "2001:4860::8"),
    ],
)
def test_the_client_is_the_last_address_no_trusted_proxy_has(
    peer: str, forwarded: list[str], found: str
) -> None:
    headers: tuple[Header, ...] = tuple((b"x-forwarded-for", value.encode()) for value in forwarded)
    assert client_address(ip_address(peer), headers, PROXIES) == ip_address(found)


@pytest.mark.parametrize(
    ("client", "found"),
    [
        (("::ffff:192.0.2.1", 1), ip_address("192.0.2.1")),
        (("/tmp/gateway.sock", 1), None),
        (None, None),
    ],
)
async def test_the_peer_may_be_mapped_or_nobody(
    rig: Rig, client: tuple[str, int] | None, found: object
) -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(exchange_of(scope).client)
        await ok(scope, receive, send)

    await rig.call(http(client=client), app)
    assert seen == [found]


async def test_refusals_on_v1_are_noted_and_no_others(rig: Rig) -> None:
    async def refused(scope: Scope, _receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        exchange.principal, exchange.refused = principal(), errors.insufficient_quota("no room")
        await send({"type": "http.response.start", "status": 402, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    noted: list[Refusal] = []
    for app, path in ((refused, "/v1/models"), (refused, "/gateway/account"), (ok, "/v1/models")):
        middleware = RequestContextMiddleware(app, rig.clock, rig.metrics, PROXIES, note=noted.append)
        await call(middleware, http("GET", path))
    [one] = noted
    assert (one.status, one.reason, one.route) == (402, "quota_exceeded", "GET unmatched")
