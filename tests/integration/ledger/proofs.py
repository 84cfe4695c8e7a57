"""What must always be true of the ledger's tables, recomputed from scratch: queries that find nothing."""

PROOFS = {
    "entries are what counters say": """
        SELECT p.id, p.held, p.settled, e.held AS entered_held, e.settled AS entered_settled FROM quota_periods p
        FULL JOIN (SELECT c, sum(held) AS held, sum(settled) AS settled
                   FROM ledger_entries, unnest(counters) c GROUP BY c) e ON e.c = p.id
        WHERE coalesce(p.held, 0) <> coalesce(e.held, 0) OR coalesce(p.settled, 0) <> coalesce(e.settled, 0)
    """,
    "what counters hold is open": """
        SELECT p.id, p.held, o.held AS open FROM quota_periods p
        LEFT JOIN (SELECT c, sum(quote) AS held FROM holds, unnest(counters) c
                   WHERE state IN ('held', 'unknown') GROUP BY c) o ON o.c = p.id
        WHERE p.held <> coalesce(o.held, 0) OR p.held < 0 OR p.settled < 0
    """,
    "counters have all that was spent and is held in their period": """
        SELECT p.id, q.period, p.settled, p.held, real.settled AS really_settled, real.held AS really_held
        FROM quota_periods p JOIN quotas q ON q.id = p.quota_id
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(h.settled) FILTER (WHERE h.state = 'settled'), 0) AS settled,
                   coalesce(sum(h.quote) FILTER (WHERE h.state IN ('held', 'unknown')), 0) AS held
            FROM holds h
            WHERE h.team_id = q.team_id
              AND (q.key_id IS NULL
                   OR h.key_id IN (SELECT k.id FROM team_keys k WHERE k.quota_key_id = q.key_id))
              AND h.placed_at >= p.starts_at AND (p.ends_at IS NULL OR h.placed_at < p.ends_at)
        ) real
        WHERE p.settled <> real.settled OR p.held <> real.held
    """,
    "a hold has one place and one end": """
        SELECT h.id, h.state, e.kinds FROM holds h
        LEFT JOIN (SELECT hold_id, array_agg(kind ORDER BY kind) AS kinds FROM ledger_entries GROUP BY hold_id) e
          ON e.hold_id = h.id
        WHERE e.kinds IS DISTINCT FROM CASE
            WHEN h.state IN ('held', 'unknown') THEN ARRAY['place']
            WHEN h.state = 'released' THEN ARRAY['place', 'release']
            WHEN h.settled > h.quote THEN ARRAY['overrun', 'place', 'settle']
            ELSE ARRAY['place', 'settle'] END
           OR (h.state = 'settled') <> (h.settled IS NOT NULL)
           OR (h.state IN ('settled', 'released')) <> (h.ended_at IS NOT NULL)
    """,
    "usage is what holds say, by the quarter of an hour they were placed in": """
        WITH expected AS (
            SELECT date_bin('15 minutes', placed_at, '2000-01-01Z') AS starts_at, team_id, key_id, model, operation,
                   count(*)::integer AS requests,
                   count(*) FILTER (WHERE state IN ('released', 'unknown'))::integer AS failed,
                   count(*) FILTER (WHERE 'shadow_refused' = ANY (flags))::integer AS shadow_refused,
                   coalesce(sum(settled), 0)::bigint AS credits,
                   coalesce(sum(settled) FILTER (WHERE estimated), 0)::bigint AS estimated_credits
            FROM holds GROUP BY 1, 2, 3, 4, 5
        ), found AS (
            SELECT starts_at, team_id, key_id, model, operation, requests, failed, shadow_refused, credits,
                   estimated_credits FROM usage_buckets
        )
        (SELECT 'expected', e.* FROM expected e EXCEPT ALL SELECT 'expected', f.* FROM found f)
        UNION ALL
        (SELECT 'found', f.* FROM found f EXCEPT ALL SELECT 'found', e.* FROM expected e)
    """,
}
