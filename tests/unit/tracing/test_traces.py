"""What of a request is told, to whom, and what happens when nobody listens."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from gateway import tracing
from gateway.tracing import Sent, Trace, Tracing, TracingUnavailableError, begin, current, entered
from gateway.tracing.traces import Parent, parent_in
from tests.fakes.otlp_collector import Collector, otlp_collector

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = Sent(
    method="POST",
    path="/v1/images/generations",
    outcome="answered",
    status=200,
    upstream_key="main",
    repeats=0,
    seconds=0.25,
)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp_collector() as found:
        yield found


def open_to(endpoint: str, sample: float = 1) -> Tracing:
    found = begin(endpoint, sample)
    found.open()
    return found


def recorded(found: Tracing, *traceparent: bytes) -> Trace:
    trace = found.request(list(traceparent))
    assert trace is not None
    return trace


def test_without_an_endpoint_nothing_is_traced_and_nothing_imported() -> None:
    off = begin(None, 1)
    off.open()
    assert type(off) is Tracing
    assert off.request([f"00-{TRACE}-{SPAN}-01".encode()]) is None
    off.close()
    assert current() is None


def test_a_trace_is_found_where_it_was_entered(collector: Collector) -> None:
    found = open_to(collector.endpoint)
    trace = recorded(found)
    with entered(trace):
        assert tracing.current() is trace
    assert tracing.current() is None
    found.close()


def test_a_request_and_its_sends_are_one_trace(collector: Collector) -> None:
    found = open_to(collector.endpoint)
    trace = recorded(found)
    trace.sent(SENT)
    trace.end("POST", "/v1/images/generations", 200, {"gateway.team": "alpha", "error.type": None})
    header = trace.header.decode()
    found.close()
    (server,), (client,) = collector.kinds(2), collector.kinds(3)
    assert header == f"00-{server.trace_id}-{server.span_id}-01"
    assert (server.name, server.parent_id, server.error) == ("POST /v1/images/generations", "", False)
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/images/generations",
        "http.response.status_code": 200,
        "gateway.team": "alpha",
    }
    assert (client.trace_id, client.parent_id) == (server.trace_id, server.span_id)
    assert client.seconds == pytest.approx(0.25, abs=0.001)
    assert client.attributes["gateway.upstream_key"] == "main"
    assert collector.paths == ["/v1/traces"]
    assert collector.resources[0]["service.name"] == "pixapi-gateway"


def test_the_caller_s_span_is_the_parent_and_its_decision_counts(collector: Collector) -> None:
    never = open_to(collector.endpoint, 0)
    assert never.request([]) is None
    trace = recorded(never, f"00-{TRACE}-{SPAN}-01".encode())
    trace.end("GET", "/v1/models", 200, {})
    assert open_to(collector.endpoint, 1).request([f"00-{TRACE}-{SPAN}-00".encode()]) is None
    never.close()
    (server,) = collector.kinds(2)
    assert (server.trace_id, server.parent_id) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "given",
    [
        [],
        [b""],
        [f"00-{TRACE}-{SPAN}".encode()],
        [f"00-{TRACE.upper()}-{SPAN}-01".encode()],
        [f"00-{'0' * 32}-{SPAN}-01".encode()],
        [f"00-{TRACE}-{'0' * 16}-01".encode()],
        [f"ff-{TRACE}-{SPAN}-01".encode()],
        [f"00-{TRACE}-{SPAN}-01-more".encode()],
        [f" 00-{TRACE}-{SPAN}-01".encode()],
        [f"00-{TRACE}-{SPAN}-01\n".encode()],
        [f"00-{TRACE}-{SPAN}-01".encode()] * 2,
    ],
)
def test_a_malformed_traceparent_is_none(given: list[bytes]) -> None:
    assert parent_in(given) is None


def test_a_traceparent_of_this_version_and_of_later_ones() -> None:
    parent = Parent(int(TRACE, 16), int(SPAN, 16), True)
    assert parent_in([f"00-{TRACE}-{SPAN}-01".encode()]) == parent
    assert parent_in([f"01-{TRACE}-{SPAN}-03-more".encode()]) == parent


def test_failures_are_marked_and_unknown_methods_have_no_name(collector: Collector) -> None:
    found = open_to(collector.endpoint)
    trace = recorded(found)
    trace.sent(
        Sent(
            method="POST", path="/p", outcome="unknown", status=None, upstream_key="a", repeats=2, seconds=0.0
        )
    )
    trace.end("BREW", "unmatched", 502, {"error.type": "outcome_unknown"})
    found.close()
    (server,), (client,) = collector.kinds(2), collector.kinds(3)
    assert (server.name, server.error) == ("_OTHER unmatched", True)
    assert client.error
    assert client.attributes == {
        "http.request.method": "POST",
        "url.template": "/p",
        "gateway.outcome": "unknown",
        "gateway.upstream_key": "a",
        "http.request.resend_count": 2,
        "error.type": "unknown",
    }


def test_a_collector_that_is_away_delays_nobody_and_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found = open_to(f"http://127.0.0.1:{closed.getsockname()[1]}/v1/traces")
        began = time.monotonic()
        for _ in range(5000):  # more than wait at most
            recorded(found).end("GET", "/v1/models", 200, {})
        spent = time.monotonic() - began
        ends = time.monotonic()
        found.close()
    assert spent < 3
    assert time.monotonic() - ends < 2
    shown = [record.getMessage() for record in caplog.records if record.name.startswith("gateway.")]
    assert shown == ["traces not sent"]
    assert not logging.getLogger("opentelemetry").propagate  # what the SDK says goes nowhere else


def test_a_collector_that_hangs_does_not_hold_the_end_up() -> None:
    before = set(threading.enumerate())
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        found = open_to(f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces")
        recorded(found).end("GET", "/v1/models", 200, {})
        began = time.monotonic()
        found.close()
        assert time.monotonic() - began < 2
        assert all(thread.daemon for thread in set(threading.enumerate()) - before)


def test_without_the_extra_an_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gateway.tracing.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnavailableError, match=r"pip install 'pixapi-gateway\[otel\]'"):
        begin("http://127.0.0.1:4318/v1/traces", 1)
