"""What was measured: samples by scenario, point and target; their medians and spread."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NOISY = 0.08  # share of all cores, used by nobody in the bench


@dataclass(frozen=True, slots=True)
class Metric:
    """A column: the values' key, their unit as printed, and how many decimals are shown."""

    key: str
    title: str
    digits: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of one target: values by metric key; `noise` is the share of all cores that others used."""

    values: Mapping[str, float]
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the turns and how far they went."""

    median: float
    low: float
    high: float


@dataclass(slots=True)
class Row:
    """All turns of one target at one point; `reason` says why there is none."""

    samples: list[Sample] = field(default_factory=list)
    reason: str | None = None

    def spread(self, key: str) -> Spread | None:
        """Of one metric over the turns that have it; None when none has."""
        return spread([one.values[key] for one in self.samples if key in one.values])

    @property
    def noise(self) -> float:
        return statistics.median(one.noise for one in self.samples) if self.samples else 0.0

    @property
    def noisy(self) -> bool:
        """Whether others used more than 8 % of the machine in the median turn."""
        return self.noise > NOISY


def spread(values: Sequence[float]) -> Spread | None:
    """Median, least and greatest; None of nothing."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Results:
    """Rows by (scenario, point, target), in the order they were first measured."""

    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)

    def add(self, scenario: str, point: str, target: str, sample: Sample) -> None:
        self._row(scenario, point, target).samples.append(sample)

    def skip(self, scenario: str, point: str, target: str, reason: str) -> None:
        """The target cannot do this; what it did before stays."""
        self._row(scenario, point, target).reason = reason

    def skipped(self, scenario: str, point: str, target: str) -> bool:
        found = self.rows.get((scenario, point, target))
        return found is not None and found.reason is not None

    def median(self, scenario: str, point: str, target: str, key: str) -> float | None:
        found = self.rows.get((scenario, point, target))
        values = None if found is None else found.spread(key)
        return None if values is None else values.median

    def of(self, scenario: str) -> dict[tuple[str, str], Row]:
        """The rows of one scenario by (point, target)."""
        return {(point, target): row for (of, point, target), row in self.rows.items() if of == scenario}

    def _row(self, scenario: str, point: str, target: str) -> Row:
        return self.rows.setdefault((scenario, point, target), Row())
