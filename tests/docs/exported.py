"""Every series of `/metrics` by its name, as the source makes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.metrics_core import Metric

from gateway.telemetry import Metrics
from gateway.telemetry.counting import Counter, Histogram

SCRAPED = frozenset({"job", "instance", "worker"})  # what Prometheus and several workers add
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True)
class Series:
    """What can be asked for by one name; `metric` is its name in docs/metrics.md."""

    metric: str
    kind: str
    labels: frozenset[str]


def families() -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """Every metric of the gateway, and the names of its labels."""
    for metric in vars(Metrics()).values():
        if isinstance(metric, Counter | Histogram):
            yield next(iter(metric.describe())), metric.labelnames
        elif isinstance(metric, Gauge):
            yield next(iter(metric.describe())), tuple(metric._labelnames)


@cache
def exported() -> dict[str, Series]:
    """Series by the name that a query uses, histogram suffixes included."""
    found: dict[str, Series] = {}
    for family, labelnames in families():
        listed = family.name + ("_total" if family.type == "counter" else "")
        for suffix in _SUFFIXES[family.type]:
            bucket = {"le"} if suffix == "_bucket" else set()
            labels = frozenset(labelnames) | bucket | SCRAPED
            found[family.name + suffix] = Series(listed, family.type, labels)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for family in registry.collect():
        for sample in family.samples:
            found[sample.name] = Series(sample.name, family.type, SCRAPED)
    assert len(found) > 40
    return found
