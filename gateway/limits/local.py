"""The limits of one process, for when Redis is gone: the same rule, on what this process alone has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gateway.limits.rate import Allowance, take

MOST_RATES = 10_000


class LocalLimits:
    """Rates while Redis is gone, and at all times how many calls of each kind run in this process."""

    def __init__(self) -> None:
        self._full_at: dict[str, int] = {}
        self._running: Counter[str] = Counter()

    def rates(self, wanted: Iterable[tuple[str, int]], now: int) -> list[Allowance]:
        """What each rate, `(key, requests a minute)`, says to one more request; `now` in microseconds."""
        return [take(limit, self._full_at.get(key, 0), now) for key, limit in wanted]

    def spend(self, taken: Iterable[tuple[str, Allowance]], now: int) -> None:
        """Takes the request from these rates."""
        for key, allowance in taken:
            self._full_at[key] = allowance.full_at
        if len(self._full_at) > MOST_RATES:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}

    def running(self, key: str) -> int:
        """How many calls are under way here."""
        return self._running[key]

    def began(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._running[key] += 1

    def ended(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._running[key] -= 1
            if self._running[key] <= 0:
                del self._running[key]
