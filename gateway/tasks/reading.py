"""What is known of a task: its state as Pixapi wrote it, how old that is, and how long it serves. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cache = Literal["hit", "miss", "coalesced", "stale"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A task as a client gets it. Times are this process's monotonic seconds.

    `number` orders the upstream reads of one task, later ones are newer; `direct` when it comes from that read itself,
    not from what Postgres had at the time. `cache` says where this came from. `asked` is false when Pixapi could not be
    asked now: nothing was read, and nothing failed.
    """

    body: bytes
    status: str
    ended: bool
    seen_at: float  # when Pixapi said so
    fresh_until: float
    number: int = 0
    direct: bool = False
    cache: Cache = "miss"
    asked: bool = True

    @property
    def rank(self) -> tuple[bool, int, bool]:
        """Nobody who has seen a reading of one rank is shown one of a lower: no status ever goes backwards."""
        return self.ended, self.number, self.direct
