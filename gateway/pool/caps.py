"""A key's cap of paid calls in flight, over all processes: leases in Redis that end by themselves.

The leases are those of the limits: taken in one script call, renewed while the call runs, gone within seconds when the
process is killed, put back when Redis has lost them. While Redis is gone each process holds the cap for itself alone.
A key without a cap costs no call of Redis.
"""

from __future__ import annotations

from uuid import UUID

from gateway.limits.limits import Bound, Bounds, Lane, Limits, Refusal, Taken

_FREE = Bound(None, None)


class Caps:
    """Places of paid calls, by key."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def take(self, key: UUID, cap: int) -> Taken | None:
        """A place, to be released when the call ends; None when all `cap` are taken."""
        bounds = Bounds(f"upstream-key:{key}", "", Bound(None, cap), _FREE)
        found = await self._limits.take(bounds, Lane.PAID)
        return None if isinstance(found, Refusal) else found
