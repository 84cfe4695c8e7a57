"""What `rollups` asks and writes, a day at a time, and how its sums are compared with what they stand for."""

# ruff: noqa: S608 - the parts put together are constants of this file

from __future__ import annotations

from sqlalchemy import text

# The transaction's id is given out after `now()`: whoever has a greater one writes later than that.
MOMENT = text(
    """
    SELECT now() AS at, pg_current_xact_id()::text::bigint AS own,
           pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest
    """
)

# Marks of days that are not closed say nothing: what they stand for is seen when the day is.
DUE = text(
    """
    WITH RECURSIVE idle AS (
        DELETE FROM usage_days_late l WHERE NOT EXISTS (SELECT FROM usage_days_closed c WHERE c.utc_day = l.utc_day)
    ), used (utc_day) AS (
        SELECT (min(b.starts_at) AT TIME ZONE 'UTC')::date FROM usage_buckets b
        UNION ALL
        SELECT (SELECT (min(b.starts_at) AT TIME ZONE 'UTC')::date FROM usage_buckets b
                WHERE b.starts_at >= (u.utc_day + 1)::timestamp AT TIME ZONE 'UTC')
        FROM used u WHERE u.utc_day IS NOT NULL
    )
    SELECT utc_day FROM (
        SELECT u.utc_day FROM used u
        WHERE (u.utc_day + 1)::timestamp AT TIME ZONE 'UTC' <= :over
          AND NOT EXISTS (SELECT FROM usage_days_closed c WHERE c.utc_day = u.utc_day)
        UNION
        SELECT l.utc_day FROM usage_days_late l JOIN usage_days_closed c ON c.utc_day = l.utc_day
    ) due
    ORDER BY utc_day LIMIT :most
    """
)

ALONE = text("SELECT pg_try_advisory_xact_lock(hashtextextended('gateway usage days', 0))")

# One statement, so one snapshot: the marks that go are those of changes the sums have in them. The holds of pruned
# months are gone, so what they went through is as it was summed before.
SUM = text(
    """
    WITH seen AS (
        DELETE FROM usage_days_late WHERE utc_day = :day
    ), sums AS MATERIALIZED (
        SELECT team_id, model, operation, day, sum(requests) AS requests, sum(failed) AS failed,
               sum(shadow_refused) AS shadow_refused, sum(credits) AS credits,
               sum(estimated_credits) AS estimated_credits
        FROM usage_buckets WHERE starts_at >= :start AND starts_at < :end
        GROUP BY team_id, model, operation, day
    ), gone AS (
        DELETE FROM usage_days d
        WHERE d.utc_day = :day
          AND NOT EXISTS (SELECT FROM sums s WHERE s.team_id = d.team_id AND s.model = d.model
                          AND s.operation = d.operation AND s.day = d.day)
    ), written AS (
        INSERT INTO usage_days AS d (utc_day, team_id, model, operation, day, requests, failed, shadow_refused, credits,
                                     estimated_credits)
        SELECT :day, s.team_id, s.model, s.operation, s.day, s.requests, s.failed, s.shadow_refused, s.credits,
               s.estimated_credits
        FROM sums s ORDER BY s.team_id, s.model, s.operation, s.day
        ON CONFLICT (utc_day, team_id, model, operation, day)
        DO UPDATE SET requests = excluded.requests, failed = excluded.failed, shadow_refused = excluded.shadow_refused,
                      credits = excluded.credits, estimated_credits = excluded.estimated_credits
        WHERE (d.requests, d.failed, d.shadow_refused, d.credits, d.estimated_credits)
              <> (excluded.requests, excluded.failed, excluded.shadow_refused, excluded.credits,
                  excluded.estimated_credits)
    ), served AS MATERIALIZED (
        SELECT upstream_key_id, count(*) AS requests, sum(settled) AS credits
        FROM holds
        WHERE id >= :lowest AND id < :highest AND placed_at >= :start AND placed_at < :end
          AND state = 'settled' AND upstream_key_id IS NOT NULL AND CAST(:day AS date) >= gateway_pruned_until()
        GROUP BY upstream_key_id
    ), served_gone AS (
        DELETE FROM upstream_key_days d
        WHERE d.utc_day = :day AND d.upstream_key_id NOT IN (SELECT s.upstream_key_id FROM served s)
          AND CAST(:day AS date) >= gateway_pruned_until()
    ), served_written AS (
        INSERT INTO upstream_key_days AS d (utc_day, upstream_key_id, requests, credits)
        SELECT :day, s.upstream_key_id, s.requests, s.credits FROM served s
        ON CONFLICT (utc_day, upstream_key_id)
        DO UPDATE SET requests = excluded.requests, credits = excluded.credits
        WHERE (d.requests, d.credits) <> (excluded.requests, excluded.credits)
    )
    INSERT INTO usage_days_closed (utc_day) VALUES (:day)
    ON CONFLICT (utc_day) DO UPDATE SET closed_at = now()
    """
)

_CLEAN = """
    clean AS (
        SELECT c.utc_day FROM usage_days_closed c
        WHERE NOT EXISTS (SELECT FROM usage_days_late l WHERE l.utc_day = c.utc_day)
    )
"""

THROUGH = text(
    f"""
    WITH {_CLEAN}, days AS (
        SELECT d.utc_day, d.lowest, d.highest,
               d.utc_day IN (SELECT c.utc_day FROM clean c) OR d.utc_day < gateway_pruned_until() AS summed
        FROM unnest(CAST(:days AS date[]), CAST(:lowest AS uuid[]), CAST(:highest AS uuid[]))
             AS d(utc_day, lowest, highest)
    )
    SELECT s.utc_day, s.upstream_key_id, s.requests, s.credits
    FROM upstream_key_days s JOIN days d ON d.utc_day = s.utc_day AND d.summed
    UNION ALL
    SELECT d.utc_day, h.upstream_key_id, count(*), sum(h.settled)
    FROM days d JOIN holds h ON h.id >= d.lowest AND h.id < d.highest
    WHERE NOT d.summed AND h.state = 'settled' AND h.upstream_key_id IS NOT NULL
      AND h.placed_at >= d.utc_day::timestamp AT TIME ZONE 'UTC'
      AND h.placed_at < (d.utc_day + 1)::timestamp AT TIME ZONE 'UTC'
    GROUP BY d.utc_day, h.upstream_key_id
    """
)

# A row of `usage_days` beside the sums it stands for, on the days where it does.
_COMPARED = """
    {clean}, expected AS (
        SELECT c.utc_day, b.team_id, b.model, b.operation, b.day, sum(b.requests) AS requests,
               sum(b.failed) AS failed, sum(b.shadow_refused) AS shadow_refused, sum(b.credits)::bigint AS credits,
               sum(b.estimated_credits)::bigint AS estimated
        FROM usage_buckets b JOIN clean c ON c.utc_day = (b.starts_at AT TIME ZONE 'UTC')::date
        {of_buckets}
        GROUP BY 1, 2, 3, 4, 5
    ), summed AS (
        SELECT d.*, d.estimated_credits AS estimated FROM usage_days d JOIN clean c ON c.utc_day = d.utc_day
        {of_days}
    ), differing AS (
        SELECT utc_day, team_id, model, operation, day,
               coalesce(s.requests, 0) AS requests, coalesce(s.failed, 0) AS failed,
               coalesce(s.shadow_refused, 0) AS shadow_refused, coalesce(s.credits, 0) AS credits,
               coalesce(s.estimated, 0) AS estimated,
               coalesce(x.requests, 0) AS e_requests, coalesce(x.failed, 0) AS e_failed,
               coalesce(x.shadow_refused, 0) AS e_shadow_refused, coalesce(x.credits, 0) AS e_credits,
               coalesce(x.estimated, 0) AS e_estimated
        FROM summed s FULL JOIN expected x USING (utc_day, team_id, model, operation, day)
        WHERE (s.requests, s.failed, s.shadow_refused, s.credits, s.estimated)
              IS DISTINCT FROM (x.requests, x.failed, x.shadow_refused, x.credits, x.estimated)
    )
"""
DIFFERING = text(
    f"""
    WITH {_COMPARED.format(clean=_CLEAN, of_buckets="", of_days="")}
    SELECT d.*, t.slug FROM differing d LEFT JOIN teams t ON t.id = d.team_id
    ORDER BY d.utc_day, d.team_id, d.model, d.operation, d.day LIMIT :most
    """
)
_OWN_COMPARED = _COMPARED.format(
    clean=_CLEAN, of_buckets="WHERE b.team_id = :team", of_days="WHERE d.team_id = :team"
)
MARK_DIFFERING = text(
    f"WITH {_OWN_COMPARED} INSERT INTO usage_days_late (utc_day) SELECT DISTINCT d.utc_day FROM differing d"
)
