"""A clock that stands still until it is told to move."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

BEGINNING = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class FakeClock:
    """Both clocks of a test; `passed` is in seconds since it began."""

    passed: float = 0.0
    monotonic_start: float = 1000.0

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.monotonic_start + self.passed

    def forward(self, seconds: float) -> None:
        self.passed += seconds
