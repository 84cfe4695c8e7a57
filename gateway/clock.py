"""Time, handed in at the edge so that everything inside takes `now` as an argument."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the gateway asks of time."""

    def now(self) -> datetime:
        """Wall time, aware, UTC: for what people read and what a database compares."""

    def monotonic(self) -> float:
        """Seconds that never jump: for TTLs, rests and durations."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)
