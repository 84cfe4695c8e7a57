"""What the first page of the dashboard asks of quotas and holds: the fullest quotas, and what is held now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.credits.quotas import Period
from gateway.credits.terms import FIRST_TENTH


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaFill:
    """A quota in its running period, in micro-credits; `key_name` None: the whole team's; `ends_at` None: a total."""

    id: UUID
    team: str
    key_id: str | None
    key_name: str | None
    period: Period
    limit: int
    settled: int
    held: int
    enforce: bool
    starts_at: datetime
    ends_at: datetime | None

    @property
    def share(self) -> Decimal:
        """What is used and held, of the limit as one; a limit of nothing is full."""
        used = self.settled + self.held
        return Decimal(used) / self.limit if self.limit else Decimal(1)

    def runs_out(self, now: datetime) -> datetime | None:
        """When it will be full if spending goes on as in this period. None if not before the period ends, when it is
        too early to say, and for a total, which began before anybody spent."""
        left = self.limit - self.settled - self.held
        elapsed = (now - self.starts_at).total_seconds()
        if self.ends_at is None or left <= 0 or self.settled <= 0 or elapsed <= 0:
            return None
        if elapsed * FIRST_TENTH < (self.ends_at - self.starts_at).total_seconds():
            return None
        seconds = left * elapsed / self.settled
        return now + timedelta(seconds=seconds) if seconds < (self.ends_at - now).total_seconds() else None


async def fullest_quotas(connection: AsyncConnection, limit: int) -> list[QuotaFill]:
    """The quotas with the largest share of their limit used or held in the running period."""
    rows = await connection.execute(_FULLEST, {"limit": limit})
    return [QuotaFill(**row._mapping) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldNow:
    """The micro-credits of all holds that have not ended; how many are under way, and how many are unknown."""

    micro: int
    held: int
    unknown: int


async def held_now(connection: AsyncConnection) -> HeldNow:
    return HeldNow(**(await connection.execute(_HELD)).one()._mapping)


# Counters are found by their end. One that has ended hides none: a quota's newest counter counts.
_FULLEST = text("""
SELECT found.*, k.name AS key_name FROM (
    SELECT DISTINCT ON (q.id) q.id, t.slug AS team, q.key_id, q.period, q.limit_micro AS "limit", c.settled, c.held,
           q.enforce, c.starts_at, c.ends_at
    FROM quota_periods c
    JOIN quotas q ON q.id = c.quota_id
    JOIN teams t ON t.id = q.team_id
    WHERE (c.ends_at > now() OR c.ends_at IS NULL) AND c.starts_at <= now() AND c.settled + c.held > 0
    ORDER BY q.id, c.starts_at DESC
) found
LEFT JOIN team_keys k ON k.id = found.key_id
ORDER BY (found.settled + found.held)::float8 / greatest(found."limit", 1) DESC, found.id
LIMIT :limit
""")

_HELD = text("""
SELECT coalesce(sum(quote), 0)::bigint AS micro, count(*) FILTER (WHERE state = 'held') AS held,
       count(*) FILTER (WHERE state = 'unknown') AS unknown
FROM holds WHERE state IN ('held', 'unknown')
""")
