"""Metrics are each process's own, and well named."""

from __future__ import annotations

from prometheus_client import generate_latest

from gateway.telemetry import Metrics


def test_metrics_are_of_their_own_and_well_named() -> None:
    first, second = Metrics(), Metrics()
    first.requests.labels("/v1/models", "GET", "200").inc()
    first.upstream_attempts.labels("answered").inc(2)
    page = generate_latest(first.registry).decode()
    assert 'gateway_requests_total{method="GET",route="/v1/models",status="200"} 1.0' in page
    assert 'gateway_upstream_attempts_total{outcome="answered"} 2.0' in page
    assert b'outcome="answered"' not in generate_latest(second.registry)
    names = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    assert all(name.startswith("gateway_") for name in names)
