"""What `verify` asks, and what it writes to repair: whole sets at a time, so that 100,000 holds take seconds.

`held` and `settled` of an entry are what it adds to the counters it names; summed over a hold's entries they are what
the hold holds and has settled now. Below, `e_` is what entries say and `r_` what the hold's own row says.
"""

# ruff: noqa: S608 - the parts put together are constants of this file

from __future__ import annotations

from sqlalchemy import text

COUNTS = text(
    """
    SELECT (SELECT count(*) FROM holds) AS holds, (SELECT count(*) FROM ledger_entries) AS entries,
           (SELECT count(*) FROM quota_periods) AS counters, (SELECT count(*) FROM usage_buckets) AS buckets,
           (SELECT count(*) FROM tasks WHERE ended_at IS NOT NULL) AS tasks
    """
)

# Every hold beside its entries. It is sound when they are exactly those its state calls for.
_VIEWS = """
    entered AS (
        SELECT e.hold_id, count(*) AS entries, sum(e.held)::bigint AS held, sum(e.settled)::bigint AS settled,
               bool_or(e.kind = 'release') AS released,
               count(*) FILTER (WHERE e.team_id = h.team_id AND e.key_id = h.key_id AND CASE e.kind
                   WHEN 'place' THEN e.held = h.quote AND e.settled = 0
                   WHEN 'settle' THEN h.state = 'settled' AND e.held = -h.quote
                        AND e.settled = least(h.settled, h.quote)
                   WHEN 'overrun' THEN h.state = 'settled' AND e.held = 0 AND e.settled = h.settled - h.quote
                   WHEN 'release' THEN h.state = 'released' AND e.held = -h.quote AND e.settled = 0
                   ELSE false END AND (e.kind = 'place' OR e.counters = h.counters)) AS fitting
        FROM ledger_entries e JOIN holds h ON h.id = e.hold_id {of_entries}
        GROUP BY e.hold_id
    ), views AS (
        SELECT h.*, coalesce(e.held, 0) AS e_held, coalesce(e.settled, 0) AS e_settled,
               CASE WHEN h.state IN ('held', 'unknown') THEN h.quote ELSE 0 END AS r_held,
               CASE WHEN h.state = 'settled' THEN coalesce(h.settled, 0) ELSE 0 END AS r_settled,
               coalesce(e.released, false) OR (coalesce(e.held, 0) > 0 AND h.state = 'unknown') AS e_failed,
               coalesce(e.fitting = e.entries
                        AND e.entries = 1 + (h.state IN ('settled', 'released'))::int
                                          + (h.state = 'settled' AND h.settled > h.quote)::int, false)
                   AND (h.settled IS NOT NULL) = (h.state = 'settled')
                   AND (h.ended_at IS NOT NULL) = (h.state IN ('settled', 'released')) AS sound
        FROM holds h LEFT JOIN entered e ON e.hold_id = h.id {of_holds}
    )
"""
_ALL_VIEWS = _VIEWS.format(of_entries="", of_holds="")
_DISPUTED_VIEWS = _VIEWS.format(
    of_entries="AND h.id = ANY (:disputed)", of_holds="WHERE h.id = ANY (:disputed)"
)
_ENTRIES = """
    (SELECT string_agg(concat(e.kind, ' held ', trim_scale(e.held / 1000000.0),
                              ' settled ', trim_scale(e.settled / 1000000.0)), ', ' ORDER BY e.made_at, e.kind)
     FROM ledger_entries e WHERE e.hold_id = {hold})
"""

# The ids of disputed holds, and of entries that belong to no hold: what follows looks at those alone once more.
DISPUTED = text(f"WITH {_ALL_VIEWS} SELECT v.id FROM views v WHERE NOT v.sound ORDER BY v.id")
ORPHANED = text(
    """
    SELECT DISTINCT e.hold_id FROM ledger_entries e
    WHERE e.kind NOT IN ('carry', 'adjust') AND NOT EXISTS (SELECT FROM holds h WHERE h.id = e.hold_id)
    ORDER BY e.hold_id
    """
)

HOLDS = text(
    f"""
    SELECT h.id, h.team_id, h.state, h.quote, h.settled, h.ended_at, {_ENTRIES.format(hold="h.id")} AS entered
    FROM holds h WHERE h.id = ANY (:disputed) ORDER BY h.id LIMIT :most
    """
)
ORPHANS = text(
    f"""
    SELECT o.hold_id AS id, (array_agg(o.team_id))[1] AS team_id, {_ENTRIES.format(hold="o.hold_id")} AS entered
    FROM ledger_entries o WHERE o.hold_id = ANY (:orphaned) GROUP BY o.hold_id ORDER BY o.hold_id LIMIT :most
    """
)

# What a disputed hold or an orphan adds to its counters is between what its entries say and what its row says.
COUNTERS = text(
    f"""
    WITH {_DISPUTED_VIEWS}, sums AS (
        SELECT c AS counter, sum(e.held)::bigint AS held, sum(e.settled)::bigint AS settled,
               (array_agg(e.team_id))[1] AS team_id
        FROM ledger_entries e CROSS JOIN unnest(e.counters) c GROUP BY c
    ), open_now AS (
        SELECT c AS counter, sum(h.quote)::bigint AS held, (array_agg(h.team_id))[1] AS team_id
        FROM holds h CROSS JOIN unnest(h.counters) c WHERE h.state IN ('held', 'unknown') GROUP BY c
    ), disputed AS (
        SELECT v.id, v.counters, v.r_held - v.e_held AS held, v.r_settled - v.e_settled AS settled
        FROM views v WHERE NOT v.sound
        UNION ALL
        SELECT o.hold_id, o.counters, -o.held, -o.settled FROM ledger_entries o WHERE o.hold_id = ANY (:orphaned)
    ), slack AS (
        SELECT n.c AS counter, sum(least(0, d.held)) AS held_less, sum(greatest(0, d.held)) AS held_more,
               sum(least(0, d.settled)) AS settled_less, sum(greatest(0, d.settled)) AS settled_more
        FROM disputed d CROSS JOIN LATERAL (
            SELECT unnest(d.counters) AS c
            UNION SELECT unnest(e.counters) FROM ledger_entries e WHERE e.hold_id = d.id) n
        GROUP BY n.c
    ), compared AS (
        SELECT counter, p.quota_id, p.starts_at, p.id IS NULL AS missing,
               coalesce(p.held, 0) AS held, coalesce(p.settled, 0) AS settled,
               coalesce(e.held, 0) AS entered_held, coalesce(e.settled, 0) AS entered_settled,
               coalesce(o.held, 0) AS open_held, coalesce(e.team_id, o.team_id) AS team_id,
               coalesce(s.held_less, 0) AS held_less, coalesce(s.held_more, 0) AS held_more,
               coalesce(s.settled_less, 0) AS settled_less, coalesce(s.settled_more, 0) AS settled_more
        FROM (SELECT id AS counter, * FROM quota_periods) p
        FULL JOIN sums e USING (counter)
        FULL JOIN open_now o USING (counter)
        LEFT JOIN slack s USING (counter)
    ), judged AS (
        SELECT *, held - entered_held BETWEEN held_less AND held_more
                  AND settled - entered_settled BETWEEN settled_less AND settled_more AS as_entered,
               open_held - entered_held BETWEEN held_less AND held_more AS as_open
        FROM compared
    )
    SELECT j.*, q.period, q.key_id, t.slug, coalesce(q.team_id, j.team_id) AS of_team
    FROM judged j LEFT JOIN quotas q ON q.id = j.quota_id LEFT JOIN teams t ON t.id = q.team_id
    WHERE NOT (as_entered AND as_open AND held >= 0 AND settled >= 0)
    ORDER BY j.counter LIMIT :most
    """
)

# Buckets from before the oldest month of holds are all that is left of it, so nothing is there to compare them with.
_OLDEST = """
    oldest AS (
        SELECT coalesce(min(to_date(right(c.relname, 7), 'YYYY_MM'))::timestamp AT TIME ZONE 'UTC', '-infinity') AS at
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'holds'::regclass AND c.relname ~ '_[0-9]{4}_[0-9]{2}$'
    )
"""
# What was placed before this instant is in pruned months, whose holds are gone: it is compared by days, with the sums
# they left and with the few holds of those days that stayed.
_CUT = "cut AS (SELECT gateway_pruned_until()::timestamp AT TIME ZONE 'UTC' AS at)"
_BUCKETS = """
    expected AS (
        SELECT date_bin('15 minutes', v.placed_at, '2000-01-01T00:00:00Z') AS starts_at, v.team_id, v.key_id,
               v.model, v.operation, count(*) AS requests,
               count(*) FILTER (WHERE 'shadow_refused' = ANY (v.flags)) AS shadow_refused,
               count(*) FILTER (WHERE v.e_failed) AS failed,
               count(*) FILTER (WHERE v.sound AND v.e_failed) AS failed_least,
               count(*) FILTER (WHERE NOT v.sound OR v.e_failed) AS failed_most,
               sum(v.e_settled)::bigint AS credits,
               sum(least(v.e_settled, v.r_settled)) AS credits_least,
               sum(greatest(v.e_settled, v.r_settled)) AS credits_most,
               coalesce(sum(v.e_settled) FILTER (WHERE v.estimated), 0)::bigint AS estimated,
               coalesce(sum(v.e_settled) FILTER (WHERE v.sound AND v.estimated), 0) AS estimated_least,
               coalesce(sum(greatest(v.e_settled, v.r_settled)) FILTER (WHERE NOT v.sound OR v.estimated), 0)
                   AS estimated_most,
               min(v.placed_at) AS placed_at
        FROM {views} v GROUP BY 1, 2, 3, 4, 5
    )
"""
_EVERY_BUCKET = f"""
    {_DISPUTED_VIEWS}, all_views AS (
        SELECT h.placed_at, h.team_id, h.key_id, h.model, h.operation, h.flags, h.estimated, d.id IS NULL AS sound,
               CASE WHEN h.state = 'settled' THEN coalesce(h.settled, 0) ELSE 0 END AS r_settled,
               CASE WHEN d.id IS NOT NULL THEN d.e_settled
                    WHEN h.state = 'settled' THEN h.settled ELSE 0 END AS e_settled,
               coalesce(d.e_failed, h.state IN ('released', 'unknown')) AS e_failed
        FROM holds h LEFT JOIN views d ON d.id = h.id
    ), {_OLDEST}, {_CUT}, {_BUCKETS.format(views="all_views")}
"""
USAGE = text(
    f"""
    WITH {_EVERY_BUCKET}
    SELECT starts_at, team_id, key_id, model, operation, t.slug,
           coalesce(u.requests, 0) AS requests, coalesce(u.failed, 0) AS failed,
           coalesce(u.shadow_refused, 0) AS shadow_refused, coalesce(u.credits, 0) AS credits,
           coalesce(u.estimated_credits, 0) AS estimated,
           coalesce(x.requests, 0) AS e_requests, coalesce(x.failed, 0) AS e_failed,
           coalesce(x.shadow_refused, 0) AS e_shadow_refused, coalesce(x.credits, 0) AS e_credits,
           coalesce(x.estimated, 0) AS e_estimated
    FROM usage_buckets u
    FULL JOIN expected x USING (starts_at, team_id, key_id, model, operation)
    LEFT JOIN teams t ON t.id = team_id
    WHERE NOT (
        coalesce(u.requests, 0) = coalesce(x.requests, 0)
        AND coalesce(u.shadow_refused, 0) = coalesce(x.shadow_refused, 0)
        AND coalesce(u.failed, 0) BETWEEN coalesce(x.failed_least, 0) AND coalesce(x.failed_most, 0)
        AND coalesce(u.credits, 0) BETWEEN coalesce(x.credits_least, 0) AND coalesce(x.credits_most, 0)
        AND coalesce(u.estimated_credits, 0)
            BETWEEN coalesce(x.estimated_least, 0) AND coalesce(x.estimated_most, 0)
    ) AND (x.requests IS NOT NULL OR starts_at >= (SELECT at FROM oldest)) AND starts_at >= (SELECT at FROM cut)
    ORDER BY starts_at, team_id, key_id, model, operation LIMIT :most
    """
)

_SUMMED = (
    "requests",
    "shadow_refused",
    "failed",
    "failed_least",
    "failed_most",
    "credits",
    "credits_least",
    "credits_most",
    "estimated",
    "estimated_least",
    "estimated_most",
)
PRUNED_USAGE = text(
    f"""
    WITH {_EVERY_BUCKET}, told AS (
        SELECT utc_day, team_id, model, operation, {", ".join(f"sum({name}) AS {name}" for name in _SUMMED)}
        FROM (
            SELECT (x.starts_at AT TIME ZONE 'UTC')::date AS utc_day, x.team_id, x.model, x.operation,
                   {", ".join(f"x.{name}" for name in _SUMMED)}
            FROM expected x WHERE x.starts_at < (SELECT at FROM cut)
            UNION ALL
            SELECT c.utc_day, c.team_id, c.model, c.operation, c.requests, c.shadow_refused, c.failed, c.failed,
                   c.failed, c.credits, c.credits, c.credits, c.estimated_credits, c.estimated_credits,
                   c.estimated_credits
            FROM carried_usage c
        ) t GROUP BY 1, 2, 3, 4
    ), stored AS (
        SELECT (b.starts_at AT TIME ZONE 'UTC')::date AS utc_day, b.team_id, b.model, b.operation,
               sum(b.requests) AS requests, sum(b.failed) AS failed, sum(b.shadow_refused) AS shadow_refused,
               sum(b.credits)::bigint AS credits, sum(b.estimated_credits)::bigint AS estimated
        FROM usage_buckets b WHERE b.starts_at < (SELECT at FROM cut) GROUP BY 1, 2, 3, 4
    )
    SELECT utc_day, team_id, model, operation, t.slug,
           coalesce(u.requests, 0) AS requests, coalesce(u.failed, 0) AS failed,
           coalesce(u.shadow_refused, 0) AS shadow_refused, coalesce(u.credits, 0) AS credits,
           coalesce(u.estimated, 0) AS estimated,
           coalesce(x.requests, 0) AS e_requests, coalesce(x.failed, 0) AS e_failed,
           coalesce(x.shadow_refused, 0) AS e_shadow_refused, coalesce(x.credits, 0)::bigint AS e_credits,
           coalesce(x.estimated, 0)::bigint AS e_estimated
    FROM stored u
    FULL JOIN told x USING (utc_day, team_id, model, operation)
    LEFT JOIN teams t ON t.id = team_id
    WHERE NOT (
        coalesce(u.requests, 0) = coalesce(x.requests, 0)
        AND coalesce(u.shadow_refused, 0) = coalesce(x.shadow_refused, 0)
        AND coalesce(u.failed, 0) BETWEEN coalesce(x.failed_least, 0) AND coalesce(x.failed_most, 0)
        AND coalesce(u.credits, 0) BETWEEN coalesce(x.credits_least, 0) AND coalesce(x.credits_most, 0)
        AND coalesce(u.estimated, 0) BETWEEN coalesce(x.estimated_least, 0) AND coalesce(x.estimated_most, 0)
    ) AND (x.requests IS NOT NULL OR utc_day >= (SELECT min(month) FROM pruned_months))
    ORDER BY utc_day, team_id, model, operation LIMIT :most
    """
)

# A hold that ended by an admin's word or by its age may cost something else than its task, which ended later.
TASKS = text(
    """
    SELECT k.id, k.hold_id, k.team_id, k.credits_cost, v.state, v.settled
    FROM tasks k
    JOIN holds v ON v.id = k.hold_id AND NOT v.id = ANY (:disputed)
    LEFT JOIN ledger_entries e ON e.hold_id = k.hold_id AND e.kind = 'settle'
    WHERE k.ended_at IS NOT NULL
      AND (v.state IN ('held', 'unknown')
           OR (v.state = 'settled' AND k.credits_cost <> v.settled AND e.actor IS NULL
               AND NOT v.flags && ARRAY['odd_cost', 'aged']))
    ORDER BY k.id LIMIT :most
    """
)

_OWN_VIEWS = _VIEWS.format(of_entries="AND h.team_id = :team", of_holds="WHERE h.team_id = :team")
_OWN_SUMS = """
    sums AS (
        SELECT c AS counter, sum(e.held)::bigint AS held, sum(e.settled)::bigint AS settled
        FROM ledger_entries e CROSS JOIN unnest(e.counters) c WHERE e.team_id = :team GROUP BY c
    )
"""
_OWN_BUCKET = """
    u.starts_at = x.starts_at AND u.team_id = x.team_id AND u.key_id = x.key_id AND u.model = x.model
    AND u.operation = x.operation
"""

REPAIR_COUNTERS = text(
    f"""
    WITH {_OWN_SUMS}, wanted AS (
        SELECT c.id, coalesce(s.held, 0) AS held, coalesce(s.settled, 0) AS settled
        FROM quota_periods c JOIN quotas q ON q.id = c.quota_id AND q.team_id = :team
        LEFT JOIN sums s ON s.counter = c.id
    )
    UPDATE quota_periods c SET held = w.held, settled = w.settled
    FROM wanted w WHERE c.id = w.id AND (c.held, c.settled) <> (w.held, w.settled)
    """
)
# A counter that is gone cannot come back under its number: it is emptied, and opened anew where it still runs.
REPAIR_MISSING = text(
    f"""
    WITH {_OWN_SUMS}, missing AS (
        SELECT s.* FROM sums s
        WHERE NOT EXISTS (SELECT FROM quota_periods c WHERE c.id = s.counter)
          AND (s.held <> 0 OR s.settled <> 0)
    ), taken_off AS (
        UPDATE holds SET counters = ARRAY(SELECT c FROM unnest(counters) c WHERE c NOT IN (SELECT counter FROM missing))
        WHERE team_id = :team AND state IN ('held', 'unknown') AND counters && ARRAY(SELECT counter FROM missing)
    )
    INSERT INTO ledger_entries (hold_id, kind, team_id, counters, held, settled, reason)
    SELECT gateway_uuid7(), 'adjust', :team, ARRAY[counter], -held, -settled, 'the counter was gone' FROM missing
    """
)
REPAIR_USAGE = text(
    f"""
    WITH {_OWN_VIEWS}, {_OLDEST}, {_CUT}, {_BUCKETS.format(views="views")}, gone AS (
        DELETE FROM usage_buckets u
        WHERE u.team_id = :team AND u.starts_at >= (SELECT at FROM oldest) AND u.starts_at >= (SELECT at FROM cut)
          AND NOT EXISTS (SELECT FROM expected x WHERE {_OWN_BUCKET})
        RETURNING 1
    ), changed AS (
        UPDATE usage_buckets u
        SET requests = x.requests, failed = x.failed, shadow_refused = x.shadow_refused, credits = x.credits,
            estimated_credits = x.estimated
        FROM expected x
        WHERE {_OWN_BUCKET} AND u.starts_at >= (SELECT at FROM cut)
          AND (u.requests, u.failed, u.shadow_refused, u.credits, u.estimated_credits)
              <> (x.requests, x.failed, x.shadow_refused, x.credits, x.estimated)
        RETURNING 1
    ), made AS (
        INSERT INTO usage_buckets (starts_at, team_id, key_id, model, operation, day, requests, failed,
                                   shadow_refused, credits, estimated_credits)
        SELECT x.starts_at, x.team_id, x.key_id, x.model, x.operation, (x.placed_at AT TIME ZONE t.time_zone)::date,
               x.requests, x.failed, x.shadow_refused, x.credits, x.estimated
        FROM expected x JOIN teams t ON t.id = x.team_id
        WHERE NOT EXISTS (SELECT FROM usage_buckets u WHERE {_OWN_BUCKET}) AND x.starts_at >= (SELECT at FROM cut)
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM changed) + (SELECT count(*) FROM made)
    """
)
