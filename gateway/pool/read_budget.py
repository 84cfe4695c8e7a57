"""How many task reads a key may make: so many in any window of time, shared by clients' polls and the reconciler. Pure.

The window slides, so no second sees more than its share. While the reconciler has tasks that are due, polls get at
most half of the reads; while one is about to break the promise of section 5 of the contract, none. Ended tasks are
read anew only while clients have not had half of the reads.
Times are monotonic seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container, Iterable
from enum import Enum
from uuid import UUID

RESERVED_SECONDS = 2.0


class Reserve(Enum):
    """How much of a key's reads is kept from polls."""

    NOTHING = "nothing"
    HALF = "half"
    ALL = "all"


class ReadFor(Enum):
    """Why a task is read: it is due, a client polls it, or one wants an ended task anew."""

    DUE = "due"
    POLL = "poll"
    RENEWAL = "renewal"


class ReadBudget:
    """The reads of one key, `per_second` of them."""

    def __init__(self, per_second: float) -> None:
        self._most = max(1, math.ceil(per_second))
        self._window = self._most / per_second
        self._taken: deque[tuple[float, ReadFor]] = deque(maxlen=self._most)
        self._reserve = Reserve.NOTHING
        self._reserved_until = 0.0

    def room(self, now: float) -> int:
        """Reads that may be made at once."""
        while self._taken and self._taken[0][0] + self._window <= now:
            self._taken.popleft()
        return self._most - len(self._taken)

    def opens_in(self, now: float) -> float:
        """Seconds until there is room."""
        return 0.0 if self.room(now) else self._taken[0][0] + self._window - now

    def take(self, now: float, purpose: ReadFor) -> bool:
        """Takes one read when there is room for its purpose."""
        if not self.room(now) or self._keeps_out(purpose, now):
            return False
        self._taken.append((now, purpose))
        return True

    def give_back(self) -> None:
        """The read that was taken last is not made."""
        if self._taken:
            self._taken.pop()

    def reserve(self, reserve: Reserve, now: float) -> None:
        """Keeps reads from polls; forgotten after a while unless said again."""
        self._reserve = reserve
        self._reserved_until = now + RESERVED_SECONDS

    def _keeps_out(self, purpose: ReadFor, now: float) -> bool:
        reserve = self._reserve if now < self._reserved_until else Reserve.NOTHING
        if purpose is ReadFor.DUE or (purpose is ReadFor.POLL and reserve is Reserve.NOTHING):
            return False
        if reserve is Reserve.ALL:
            return True
        return sum(one is not ReadFor.DUE for _, one in self._taken) >= max(1, self._most // 2)


class ReadBudgets:
    """The budgets of all keys, by key."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._budgets: dict[UUID, ReadBudget] = {}

    def of(self, key: UUID) -> ReadBudget:
        found = self._budgets.get(key)
        if found is None:
            found = self._budgets[key] = ReadBudget(self._per_second)
        return found

    def opens_in(self, keys: Iterable[UUID], now: float) -> float:
        """Seconds until one of the keys has room that has none now; infinite when none is full."""
        waits = (self.of(key).opens_in(now) for key in keys)
        return min((wait for wait in waits if wait > 0), default=math.inf)

    def keep(self, keys: Container[UUID]) -> None:
        """Forgets the budgets of all other keys."""
        self._budgets = {key: budget for key, budget in self._budgets.items() if key in keys}
