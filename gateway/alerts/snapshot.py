"""What the rules look at, read from Postgres: counters of current periods, the pool, unknown holds, odd costs, months.

Every query goes by an index over little: current counters by their end, unknown holds by the index of open ones, tasks
by indexes that hold nothing but odd costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.alerts.facts import CostNews, KeyHealth, OwnFacts, QuotaUse, Snapshot, UnknownHolds
from gateway.alerts.rules import BAND
from gateway.credits.terms import FIRST_TENTH
from gateway.db.tables import upstream_keys
from gateway.pool.health import OUT_OF_CREDITS, REFUSED, Health, Use
from gateway.pool.rests import HEALTH, health_of

MOST_UNKNOWN = 10_000  # counted; beyond it people know enough


async def read(connection: AsyncConnection, own: OwnFacts, thresholds: Sequence[int]) -> Snapshot:
    """Everything as it is now; of quotas those that a rule may have something to say about."""
    lowest = min(thresholds, default=100) - BAND
    quotas = await connection.execute(_QUOTAS, {"lowest": lowest, "near": 100 - BAND, "tenth": FIRST_TENTH})
    unknown = (await connection.execute(_UNKNOWN, {"most": MOST_UNKNOWN})).one()
    tasks = (await connection.execute(_LAG)).one()
    return Snapshot(
        now=tasks.now,
        quotas=tuple(QuotaUse(**row._mapping) for row in quotas),
        keys=await _keys(connection),
        unknown=UnknownHolds(count=unknown.number, oldest=unknown.oldest) if unknown.number else None,
        costs=tuple(_cost(row) for row in await connection.execute(_COSTS)),
        lag=float(tasks.late or 0),
        unmade=tuple((await connection.execute(_UNMADE)).scalars()),
        own=own,
    )


async def _keys(connection: AsyncConnection) -> tuple[KeyHealth, ...]:
    table = upstream_keys.c
    query = select(table.id, table.label, table.account, table.state, table.state_reason, *HEALTH)
    rows = await connection.execute(query.where(table.removed_at.is_(None)).order_by(table.id))
    return tuple(_key(row) for row in rows)


def _key(row: Any) -> KeyHealth:
    health, now = health_of(row), float(row.now_at)
    return KeyHealth(
        id=row.id,
        label=row.label,
        account=row.account,
        state=row.state,
        state_reason=row.state_reason,
        rest_reason=_reason(health, now),
        rests=max(0.0, health.paid_until - now),
    )


def _reason(health: Health, now: float) -> str | None:
    """Why it rests. A refused key does until the model list accepts it, an empty account until a call was paid."""
    if health.reason == OUT_OF_CREDITS or (health.reason == REFUSED and health.check_at is not None):
        return health.reason
    return health.reason if health.rests(Use.PAID, now) else None


def _cost(row: Any) -> CostNews:
    day = row.day.astimezone(UTC).date().isoformat()
    return CostNews(
        kind=row.kind,
        model=row.model,
        day=day,
        count=row.number,
        task_id=row.task_id,
        cost=row.cost,
        charge=row.charge,
        quote=row.quote,
    )


# Roughly, and rather too many: the rules decide exactly.
# A counter that has ended hides no longer one that began earlier: where the clock went back two may be current.
_QUOTAS = text("""
SELECT DISTINCT ON (q.id) q.id, t.slug AS team, q.key_id, q.period, q.limit_micro AS limit, c.settled, c.held,
       q.enforce, c.starts_at, c.ends_at
FROM quota_periods c
JOIN quotas q ON q.id = c.quota_id
JOIN teams t ON t.id = q.team_id
WHERE (c.ends_at > now() OR c.ends_at IS NULL) AND c.starts_at <= now() AND q.limit_micro > 0
  AND ((c.settled + c.held)::float8 * 100.1 >= q.limit_micro::float8 * :lowest
       OR (now() - c.starts_at) * :tenth >= c.ends_at - c.starts_at
          AND c.settled::float8 * 100.1 * extract(epoch FROM c.ends_at - c.starts_at)::float8
              > q.limit_micro::float8 * :near * extract(epoch FROM now() - c.starts_at)::float8
       OR q.id IN (SELECT substr(subject, 7)::uuid FROM alerts
                   WHERE resolved_at IS NULL AND kind IN ('quota_threshold', 'quota_projected_overrun')))
ORDER BY q.id, c.starts_at DESC
""")

_UNKNOWN = text("""
SELECT count(*) AS number, min(coalesce(h.unknown_at, h.placed_at)) AS oldest
FROM (SELECT unknown_at, placed_at FROM holds WHERE state = 'unknown' ORDER BY id LIMIT :most) h
""")

# Yesterday's too: what ended just before midnight is judged after it.
_COSTS = text("""
SELECT found.*, t.credits_cost AS cost, t.charge, t.quote
FROM (
    SELECT 'price_drift' AS kind, model, date_trunc('day', ended_at) AS day, count(*) AS number,
           (array_agg(id ORDER BY ended_at, id))[1] AS task_id
    FROM tasks
    WHERE status = 'completed' AND (credits_cost < charge OR credits_cost > quote)
      AND ended_at >= date_trunc('day', now()) - interval '1 day'
    GROUP BY 2, 3
    UNION ALL
    SELECT 'odd_cost', model, date_trunc('day', ended_at), count(*), (array_agg(id ORDER BY ended_at, id))[1]
    FROM tasks
    WHERE status = 'completed' AND credits_cost IS NULL
      AND ended_at >= date_trunc('day', now()) - interval '1 day'
    GROUP BY 2, 3
) found
JOIN tasks t ON t.id = found.task_id
""")

_LAG = text("""
SELECT now() AS now, (
    SELECT extract(epoch FROM now() - next_read_at) FROM tasks
    WHERE ended_at IS NULL AND next_read_at <= now() AND (leased_until IS NULL OR leased_until <= now())
    ORDER BY next_read_at LIMIT 1
) AS late
""")

_UNMADE = text("""
SELECT DISTINCT to_char(m.month, 'YYYY-MM') AS month
FROM generate_series(0, 1) n
CROSS JOIN LATERAL (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month') AS m(month)
CROSS JOIN unnest(ARRAY['holds', 'ledger_entries', 'attempts']) AS p(parent)
WHERE NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = to_regclass(p.parent || to_char(m.month, '_YYYY_MM')))
ORDER BY month
""")
