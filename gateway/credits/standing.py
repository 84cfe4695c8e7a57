"""Where the quotas of a key stand: its own and its team's, with what the running period has spent and holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.credits.quotas import Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One quota now, in micro-credits; `resets_at` None for a total."""

    scope: Literal["team", "key"]
    period: Period
    limit: int
    settled: int
    held: int
    resets_at: datetime | None
    enforce: bool

    @property
    def remaining(self) -> int:
        """What a call may still need; 0 when the limit was lowered below what is used."""
        return max(0, self.limit - self.settled - self.held)


async def of_key(connection: AsyncConnection, team_id: UUID, key_id: str) -> list[Standing]:
    """Every quota that applies to calls of this key, the team's first, shortest period first.

    The keys it was rotated from and into count on the same ones.
    A counter that no call has opened yet is shown as it would start: with what its period has spent and holds.
    """
    rows = await connection.execute(_STANDINGS, {"team": team_id, "key": key_id})
    return [Standing(**row._mapping) for row in rows]


async def of_team(connection: AsyncConnection, team_id: UUID) -> list[Standing]:
    """The team's own quotas, shortest period first, as `of_key` tells them."""
    rows = await connection.execute(_STANDINGS, {"team": team_id, "key": None})
    return [Standing(**row._mapping) for row in rows]


_STANDINGS = text(
    """
    WITH line AS (
        SELECT k.id FROM team_keys k
        WHERE k.quota_key_id = (SELECT asking.quota_key_id FROM team_keys asking WHERE asking.id = :key)
    )
    SELECT CASE WHEN q.key_id IS NULL THEN 'team' ELSE 'key' END AS scope, q.period, q.limit_micro AS "limit",
           coalesce(c.settled, (
               SELECT sum(u.credits) FROM usage_buckets u
               WHERE u.team_id = q.team_id AND u.starts_at >= p.starts_at
                 AND (p.ends_at IS NULL OR u.starts_at < p.ends_at)
                 AND (q.key_id IS NULL OR u.key_id IN (SELECT id FROM line))), 0)::bigint AS settled,
           coalesce(c.held, (
               SELECT sum(h.quote) FROM holds h
               WHERE h.state IN ('held', 'unknown') AND h.team_id = q.team_id AND h.placed_at >= p.starts_at
                 AND (p.ends_at IS NULL OR h.placed_at < p.ends_at)
                 AND (q.key_id IS NULL OR h.key_id IN (SELECT id FROM line))), 0)::bigint AS held,
           CASE WHEN c.id IS NULL THEN p.ends_at ELSE c.ends_at END AS resets_at, q.enforce
    FROM quotas q
    JOIN teams t ON t.id = q.team_id
    CROSS JOIN LATERAL gateway_period(q.period, t.time_zone, now()) p
    LEFT JOIN LATERAL (
        SELECT * FROM quota_periods c
        WHERE c.quota_id = q.id AND c.starts_at <= now() AND (c.ends_at IS NULL OR c.ends_at > now())
        ORDER BY c.starts_at DESC LIMIT 1
    ) c ON true
    WHERE q.team_id = :team AND (q.key_id IS NULL OR q.key_id IN (SELECT id FROM line))
    ORDER BY q.key_id NULLS FIRST, array_position(ARRAY['day', 'week', 'month', 'total'], q.period)
    """
)
