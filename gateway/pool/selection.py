"""Which upstream key a call goes to: the least loaded for its weight. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Generic, TypeVar

import msgspec

Key = TypeVar("Key")


class Candidate(msgspec.Struct, Generic[Key], frozen=True):
    """A key that may serve the call: calls in flight through it, its weight and its cap."""

    key: Key
    in_flight: int
    weight: int
    max_in_flight: int | None

    @property
    def full(self) -> bool:
        return self.max_in_flight is not None and self.in_flight >= self.max_in_flight


def choose(candidates: Sequence[Candidate[Key]], random: Random) -> Candidate[Key] | None:
    """The candidate with room whose next call leaves it least loaded for its weight; None when all are full.

    Equally loaded keys are drawn by weight, so that an idle pool does not always start with the same one.
    """
    free = [candidate for candidate in candidates if not candidate.full]
    if len(free) < 2:  # most pools have one key
        return free[0] if free else None
    lightest = min((candidate.in_flight + 1) / candidate.weight for candidate in free)
    tied = [c for c in free if (c.in_flight + 1) / c.weight == lightest]
    if len(tied) == 1:
        return tied[0]
    return random.choices(tied, weights=[candidate.weight for candidate in tied])[0]
