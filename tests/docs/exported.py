"""Every series of `/metrics` by its name, as the source makes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

from gateway import telemetry

SCRAPED = frozenset({"job", "instance", "worker"})  # what Prometheus and several workers add
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True)
class Series:
    """What can be asked for by one name; `metric` is its name in docs/metrics.md."""

    metric: str
    kind: str
    labels: frozenset[str]


@cache
def exported() -> dict[str, Series]:
    """Series by the name that a query uses, histogram suffixes included."""
    found: dict[str, Series] = {}
    for metric in vars(telemetry.Metrics()).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        family = next(iter(metric.describe()))
        listed = family.name + ("_total" if family.type == "counter" else "")
        for suffix in _SUFFIXES[family.type]:
            bucket = {"le"} if suffix == "_bucket" else set()
            labels = frozenset(metric._labelnames) | bucket | SCRAPED
            found[family.name + suffix] = Series(listed, family.type, labels)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for family in registry.collect():
        for sample in family.samples:
            found[sample.name] = Series(sample.name, family.type, SCRAPED)
    assert len(found) > 40
    return found
