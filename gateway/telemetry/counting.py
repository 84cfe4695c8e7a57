"""Counters and histograms that cost a request next to nothing.

Those of `prometheus_client` take locks and check each number they are given, a dozen times in a paid call. These are
plain numbers, to be touched by the event loop's thread alone, and become what Prometheus reads when it reads.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import inf
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

# The switch by which `prometheus_client` leaves out when its own metrics began.
_TELLS_BEGINNING = os.environ.get("PROMETHEUS_DISABLE_CREATED_SERIES", "").lower() not in ("true", "1", "t")


class Count:
    """A number that only grows; `began` in seconds since 1970."""

    __slots__ = ("began", "value")

    def __init__(self) -> None:
        self.began = time.time()
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Raises ValueError for a negative amount."""
        if amount < 0:
            raise ValueError("A counter only grows.")
        self.value += amount


class Distribution:
    """How many of the observed amounts were at most each bound and above the one before it, and the sum of all."""

    __slots__ = ("_bounds", "began", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """The last of `bounds`, which rise, is infinite."""
        self._bounds = bounds
        self.began = time.time()
        self.counts = [0] * len(bounds)
        self.sum = 0.0

    def observe(self, amount: float) -> None:
        self.counts[bisect_left(self._bounds, amount)] += 1
        self.sum += amount


Child = TypeVar("Child", Count, Distribution)


class _Labelled(Collector, Generic[Child]):
    """A metric, with a child for each set of labels that was asked for; one from the start when it has no labels."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str] = (),
        *,
        registry: CollectorRegistry,
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.labelnames = tuple(labelnames)
        self._children: dict[tuple[str, ...], Child] = {}
        if not labelnames:
            self.labels()
        registry.register(self)

    def labels(self, *values: object) -> Child:
        """The child with these labels, as texts. Raises ValueError when they are more or fewer than the metric has."""
        texts = tuple(map(str, values))
        child = self._children.get(texts)
        if child is None:
            if len(texts) != len(self.labelnames):
                raise ValueError(f"{self.name} has the labels {self.labelnames}.")
            child = self._children[texts] = self._new()
        return child

    def describe(self) -> Iterable[Metric]:
        """What it is called."""
        return [self._family()]

    @abstractmethod
    def _new(self) -> Child: ...

    @abstractmethod
    def _family(self) -> Metric: ...


class Children(dict[tuple[object, ...], Child]):
    """A metric's children by their labels, for those that every request looks up."""

    def __init__(self, metric: _Labelled[Child]) -> None:
        super().__init__()
        self._metric: _Labelled[Child] = metric

    def __missing__(self, labels: tuple[object, ...]) -> Child:
        child: Child = self._metric.labels(*labels)
        self[labels] = child
        return child


class Counter(_Labelled[Count]):
    """A metric that counts; read as `name_total`."""

    def inc(self, amount: float = 1) -> None:
        """Of a counter without labels."""
        self.labels().inc(amount)

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for labels, count in self._children.items():
            began = count.began if _TELLS_BEGINNING else None
            family.add_metric(labels, count.value, created=began)
        return [family]

    def _new(self) -> Count:
        return Count()

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self.name, self.documentation, labels=self.labelnames)


class Histogram(_Labelled[Distribution]):
    """A metric of amounts, by the buckets they fall into; `buckets` are their upper bounds but the infinite one."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str] = (),
        *,
        registry: CollectorRegistry,
        buckets: Sequence[float],
    ) -> None:
        self._bounds = (*buckets, inf)
        self._bound_texts = tuple(map(floatToGoString, self._bounds))
        super().__init__(name, documentation, labelnames, registry=registry)

    def observe(self, amount: float) -> None:
        """Of a histogram without labels."""
        self.labels().observe(amount)

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for labels, found in self._children.items():
            buckets = list(zip(self._bound_texts, accumulate(found.counts), strict=True))
            family.add_metric(labels, buckets, found.sum)
            if _TELLS_BEGINNING:
                named = dict(zip(self.labelnames, labels, strict=True))
                family.samples.append(Sample(f"{self.name}_created", named, found.began))
        return [family]

    def _new(self) -> Distribution:
        return Distribution(self._bounds)

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self.name, self.documentation, labels=self.labelnames)
