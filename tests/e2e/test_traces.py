"""Traces of a served gateway, as a local collector records them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e import harness
from tests.e2e.harness import Gateway, eventually
from tests.fakes.otlp_collector import Collector, Span, otlp_collector

MODEL = "gemini-2.5-flash-image"
PROMPT = "A cup of a colour nobody has told"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SERVER, CLIENT = 2, 3


@dataclass(frozen=True)
class Rig:
    """A gateway with two upstream keys that traces to `collector`."""

    gateway: Gateway
    collector: Collector
    sandbox: str
    key: str
    secrets: tuple[str, ...]

    def paid(self, **headers: str) -> httpx.Response:
        with self.gateway.client(self.key) as client:
            return client.post(
                "/v1/images/generations", json={"model": MODEL, "prompt": PROMPT}, headers=headers
            )

    def spans(self, answer: httpx.Response) -> tuple[Span, list[Span]]:
        """The request's own span, once it is there, and those of its sends."""
        request_id = answer.headers["x-request-id"]

        def own() -> list[Span]:
            servers = self.collector.kinds(SERVER)
            return [span for span in servers if span.attributes["gateway.request_id"] == request_id]

        (server,) = eventually(own)
        return server, [span for span in self.collector.kinds(CLIENT) if span.trace_id == server.trace_id]


@pytest.fixture(scope="module")
def rig(module_database_url: str, redis_url: str) -> Iterator[Rig]:
    secrets = ("sk_acct_7b21e0c4d90001", "sk_acct_7b21e0c4d90002")
    with otlp_collector() as collector, harness.sandbox() as sandbox:
        endpoint = collector.endpoint.removesuffix("/v1/traces")
        traced = {"GATEWAY_TRACING__ENDPOINT": endpoint}
        with harness.gateway(module_database_url, redis_url, sandbox.base, traced) as gateway:
            for number, secret in enumerate(secrets):
                gateway.upstream_key(secret, f"key-{number}", account="acct")
            key = gateway.key(gateway.team("Studio")["slug"])
            rig = Rig(gateway, collector, sandbox.base, key, (*secrets, key))
            eventually(lambda: rig.paid().status_code == 200)
            yield rig


def test_a_paid_call_is_a_server_span_with_a_client_span(rig: Rig) -> None:
    answer = rig.paid().raise_for_status()
    server, (client,) = rig.spans(answer)
    assert answer.headers["traceresponse"] == f"00-{server.trace_id}-{server.span_id}-01"
    assert (server.name, server.parent_id, server.error) == ("POST /v1/images/generations", "", False)
    assert server.attributes | {"gateway.hold": ""} == {
        "http.request.method": "POST",
        "http.route": "/v1/images/generations",
        "http.response.status_code": 200,
        "gateway.request_id": answer.headers["x-request-id"],
        "gateway.team": "studio",
        "gateway.model": MODEL,
        "gateway.operation": "images.generations",
        "gateway.hold": "",
    }
    assert client.parent_id == server.span_id
    assert client.attributes | {"gateway.upstream_key": ""} == {
        "http.request.method": "POST",
        "url.template": "/v1/images/generations",
        "http.response.status_code": 200,
        "gateway.outcome": "answered",
        "gateway.upstream_key": "",
    }
    assert 0 < client.seconds < server.seconds


def test_a_failover_is_two_client_spans_of_one_trace(rig: Rig) -> None:
    httpx.post(f"{rig.sandbox}/sandbox/faults", json={"name": "status", "value": 429}).raise_for_status()
    server, clients = rig.spans(rig.paid().raise_for_status())
    assert [span.attributes["gateway.outcome"] for span in clients] == ["throttled", "answered"]
    assert [span.attributes["http.response.status_code"] for span in clients] == [429, 200]
    assert [span.attributes.get("http.request.resend_count") for span in clients] == [None, 1]
    assert [span.error for span in clients] == [True, False]
    assert {span.parent_id for span in clients} == {server.span_id}
    assert {span.attributes["gateway.upstream_key"] for span in clients} == {"key-0", "key-1"}


def test_the_caller_s_span_is_the_parent_and_a_malformed_one_is_none(rig: Rig) -> None:
    server, clients = rig.spans(rig.paid(traceparent=f"00-{TRACE}-{SPAN}-01"))
    assert (server.trace_id, server.parent_id) == (TRACE, SPAN)
    assert {span.trace_id for span in clients} == {TRACE}
    server, _ = rig.spans(rig.paid(traceparent=f"00-{TRACE}-{SPAN}-zz"))
    assert server.trace_id != TRACE
    assert server.parent_id == ""


def test_no_trace_context_goes_to_pixapi(rig: Rig) -> None:
    answer = rig.paid(traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="vendor=1", baggage="a=b")
    journal = httpx.get(f"{rig.sandbox}/sandbox/journal").raise_for_status().text
    assert answer.headers["x-request-id"] in journal
    for word in (TRACE, "traceparent", "tracestate", "baggage"):
        assert word not in journal


def test_no_prompt_and_no_key_is_exported(rig: Rig) -> None:
    rig.spans(rig.paid(tracestate=f"vendor={rig.key}"))
    exported = b"".join(rig.collector.raw)
    assert b"gateway.hold" in exported
    for secret in (PROMPT, *rig.secrets, rig.gateway.environment["GATEWAY_ADMIN__BOOTSTRAP_TOKEN"]):
        assert secret.encode() not in exported


def test_a_refused_key_is_a_trace_with_its_reason_and_no_send(rig: Rig) -> None:
    answer = httpx.post(f"{rig.gateway.base}/v1/images/generations", json={"model": MODEL, "prompt": PROMPT})
    server, clients = rig.spans(answer)
    assert clients == []
    assert server.attributes["error.type"] == answer.json()["error"]["reason"] == "invalid_key"
