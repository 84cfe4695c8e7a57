"""The ledger's verbs as functions: a batch of holds is placed, or ended, in one statement.

Locks are taken in one order everywhere, so that batches of several processes cannot wait for each other in a circle:
team (advisory), tasks, holds, counters by id, usage buckets by key.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Where a calendar period that holds an instant begins and ends in a zone; a total begins with time and never ends.
# Midnight may come twice or not at all where the clocks change at that hour: a day begins with its first instant.
PERIODS = """
CREATE FUNCTION gateway_first_instant(midnight timestamp, zone text) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
    first timestamptz := midnight AT TIME ZONE zone;
BEGIN
    WHILE (first - interval '15 minutes') AT TIME ZONE zone >= midnight LOOP
        first := first - interval '15 minutes';
    END LOOP;
    RETURN first;
END
$$;

CREATE FUNCTION gateway_period(kind text, zone text, at timestamptz, OUT starts_at timestamptz, OUT ends_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    first timestamp;
BEGIN
    IF kind = 'total' THEN
        starts_at := '1970-01-01T00:00:00Z';
        RETURN;
    END IF;
    first := date_trunc(kind, at AT TIME ZONE zone);
    starts_at := gateway_first_instant(first, zone);
    ends_at := gateway_first_instant(first + ('1 ' || kind)::interval, zone);
END
$$;

CREATE FUNCTION gateway_uuid7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT overlay(overlay(gen_random_uuid()::text
        PLACING substr(m, 1, 8) || '-' || substr(m, 9, 4) FROM 1 FOR 13) PLACING '7' FROM 15 FOR 1)::uuid
    FROM (SELECT lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') AS m) AS stamp
$$;

CREATE FUNCTION gateway_lock_team(team uuid, alone boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF alone THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(team::text, 20251));
    ELSE
        PERFORM pg_advisory_xact_lock_shared(hashtextextended(team::text, 20251));
    END IF;
END
$$;
"""

# Opens the counters a team's quotas need now: after a quota was made, when a period begins, when its zone has changed.
# A counter starts with what its period has already spent and holds; the open holds are put on it. They are locked
# first: a hold that ended between the sums would be in neither or in both.
COUNTERS = """
CREATE FUNCTION gateway_open_counters(team uuid) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    quota record;
    counter bigint;
    spent bigint;
    open_now bigint;
    made integer := 0;
BEGIN
    PERFORM gateway_lock_team(team, true);
    PERFORM FROM holds h WHERE h.state IN ('held', 'unknown') AND h.team_id = team ORDER BY h.id FOR NO KEY UPDATE;
    FOR quota IN
        SELECT q.id, q.key_id, p.starts_at, p.ends_at
        FROM quotas q
        JOIN teams t ON t.id = q.team_id
        CROSS JOIN LATERAL gateway_period(q.period, t.time_zone, now()) p
        WHERE q.team_id = team
          AND NOT EXISTS (SELECT FROM quota_periods c WHERE c.quota_id = q.id AND c.starts_at <= now()
                          AND (c.ends_at IS NULL OR c.ends_at > now()))
        ORDER BY q.id
        FOR KEY SHARE OF q  -- one that is being removed is waited for, and gone
    LOOP
        made := made + 1;
        SELECT coalesce(sum(u.credits), 0) INTO spent
        FROM usage_buckets u
        WHERE u.team_id = team AND u.starts_at >= quota.starts_at
          AND (quota.key_id IS NULL OR u.key_id = quota.key_id);
        SELECT coalesce(sum(h.quote), 0) INTO open_now
        FROM holds h
        WHERE h.state IN ('held', 'unknown') AND h.team_id = team AND h.placed_at >= quota.starts_at
          AND (quota.key_id IS NULL OR h.key_id = quota.key_id);
        INSERT INTO quota_periods (quota_id, starts_at, ends_at, settled, held)
        VALUES (quota.id, quota.starts_at, quota.ends_at, spent, open_now)
        ON CONFLICT (quota_id, starts_at) DO NOTHING
        RETURNING id INTO counter;
        IF counter IS NULL THEN  -- the zone's rules have changed since it was opened: the period is longer now
            UPDATE quota_periods c SET ends_at = quota.ends_at
            WHERE c.quota_id = quota.id AND c.starts_at = quota.starts_at;
            CONTINUE;
        END IF;
        UPDATE holds SET counters = counters || counter
        WHERE state IN ('held', 'unknown') AND team_id = team AND placed_at >= quota.starts_at
          AND (quota.key_id IS NULL OR key_id = quota.key_id);
        IF spent <> 0 OR open_now <> 0 THEN
            INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, reason)
            VALUES (gateway_uuid7(), 'carry', team, quota.key_id, ARRAY[counter], open_now, spent,
                    'what the period had before this counter');
        END IF;
    END LOOP;
    RETURN made;
END
$$;
"""

# items: [{id, team, key, request, operation, model, quote}], some dozens at most, decided in their order.
# outcome: placed | refused (with the quota that refused) | no_counter (call gateway_open_counters, then again).
# A hold that is there already counts as placed and changes nothing, so a batch can be sent again as it is.
# The settings: plans are made once a connection, often while the tables are still empty, and must suit full ones.
PLACE = """
CREATE FUNCTION gateway_place(items jsonb)
RETURNS TABLE (id uuid, outcome text, remaining bigint, shadow boolean, on_key boolean, period text,
               limit_micro bigint, settled bigint, held bigint, resets_at timestamptz)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    item_ids uuid[];
    item_teams uuid[];
    item_keys text[];
    item_quotes bigint[];
    known_ids uuid[];
    item record;
    slot integer;
    refusing integer;
    counter_ids bigint[];
    team_ids uuid[];
    key_ids text[];
    periods text[];
    limits bigint[];
    enforced boolean[];
    ends timestamptz[];
    settled_now bigint[];
    held_now bigint[];
    added bigint[];
    placed_numbers bigint[] := '{}';
    placed_ids uuid[] := '{}';
    placed_counters text[] := '{}';
    placed_shadow boolean[] := '{}';
    is_shadow boolean;
    is_new boolean;
    tightest bigint;
    moved integer;
BEGIN
    SELECT array_agg(i.id), array_agg(i.team), array_agg(i.key), array_agg(i.quote)
    INTO item_ids, item_teams, item_keys, item_quotes
    FROM jsonb_to_recordset(items) AS i(id uuid, team uuid, key text, quote bigint);

    PERFORM gateway_lock_team(t.team, false)
    FROM (SELECT DISTINCT u.team FROM unnest(item_teams) AS u(team) ORDER BY u.team) t;

    SELECT array_agg(c.id) INTO counter_ids
    FROM (
        SELECT q.id FROM quotas q WHERE q.key_id IS NULL AND q.team_id = ANY (item_teams)
        UNION ALL
        SELECT q.id FROM quotas q
        WHERE q.key_id IS NOT NULL AND q.key_id = ANY (item_keys) AND q.team_id = ANY (item_teams)
    ) q
    CROSS JOIN LATERAL (
        SELECT c.id, c.ends_at FROM quota_periods c WHERE c.quota_id = q.id AND c.starts_at <= now()
        ORDER BY c.starts_at DESC LIMIT 1
    ) c
    WHERE c.ends_at IS NULL OR c.ends_at > now();
    PERFORM FROM quota_periods c WHERE c.id = ANY (counter_ids) ORDER BY c.id FOR NO KEY UPDATE;

    -- Every quota that applies to anything in the batch, with its counter as it is now that it is locked.
    SELECT array_agg(s.counter), array_agg(s.team_id), array_agg(s.key_id), array_agg(s.period),
           array_agg(s.limit_micro), array_agg(s.enforce), array_agg(s.ends_at),
           array_agg(s.settled), array_agg(s.held), array_agg(0::bigint)
    INTO counter_ids, team_ids, key_ids, periods, limits, enforced, ends, settled_now, held_now, added
    FROM (
        SELECT q.*, c.id AS counter, c.ends_at, c.settled, c.held
        FROM (
            SELECT q.id, q.team_id, q.key_id, q.period, q.limit_micro, q.enforce
            FROM quotas q WHERE q.key_id IS NULL AND q.team_id = ANY (item_teams)
            UNION ALL
            SELECT q.id, q.team_id, q.key_id, q.period, q.limit_micro, q.enforce
            FROM quotas q WHERE q.key_id IS NOT NULL AND q.key_id = ANY (item_keys) AND q.team_id = ANY (item_teams)
        ) q
        LEFT JOIN LATERAL (
            SELECT c.id, c.ends_at, c.settled, c.held FROM quota_periods c
            WHERE c.quota_id = q.id AND c.starts_at <= now()
            ORDER BY c.starts_at DESC LIMIT 1
        ) c ON c.ends_at IS NULL OR c.ends_at > now()
        ORDER BY c.id, q.id
    ) s;
    SELECT array_agg(h.id) INTO known_ids FROM holds h WHERE h.id = ANY (item_ids);

    FOR item IN
        SELECT i.n, i.id, i.quote, p.slots, p.counters
        FROM unnest(item_ids, item_teams, item_keys, item_quotes) WITH ORDINALITY AS i(id, team, key, quote, n)
        LEFT JOIN (
            SELECT k.team, k.key, array_agg(u.slot::integer ORDER BY u.slot) AS slots,
                   array_agg(u.counter ORDER BY u.slot)::text AS counters
            FROM (SELECT DISTINCT d.team, d.key FROM unnest(item_teams, item_keys) AS d(team, key)) k
            JOIN unnest(team_ids, key_ids, counter_ids) WITH ORDINALITY AS u(team, key, counter, slot)
              ON u.team = k.team AND (u.key IS NULL OR u.key = k.key)
            GROUP BY k.team, k.key
        ) p ON p.team = i.team AND p.key = i.key
        ORDER BY i.n
    LOOP
        refusing := NULL;
        is_shadow := false;
        tightest := NULL;
        outcome := 'placed';
        is_new := NOT coalesce(item.id = ANY (placed_ids) OR item.id = ANY (known_ids), false);
        IF is_new THEN
            FOREACH slot IN ARRAY coalesce(item.slots, '{}') LOOP
                IF counter_ids[slot] IS NULL THEN
                    outcome := 'no_counter';
                ELSIF settled_now[slot] + held_now[slot] + item.quote > limits[slot] THEN
                    IF enforced[slot] THEN
                        refusing := coalesce(refusing, slot);
                    ELSE
                        is_shadow := true;
                    END IF;
                END IF;
            END LOOP;
            IF outcome = 'placed' AND refusing IS NOT NULL THEN
                outcome := 'refused';
            END IF;
        END IF;
        IF outcome = 'placed' THEN
            IF is_new THEN
                placed_numbers := placed_numbers || item.n;
                placed_ids := placed_ids || item.id;
                placed_counters := placed_counters || coalesce(item.counters, '{}');
                placed_shadow := placed_shadow || is_shadow;
            END IF;
            FOREACH slot IN ARRAY coalesce(item.slots, '{}') LOOP
                IF is_new THEN
                    held_now[slot] := held_now[slot] + item.quote;
                    added[slot] := added[slot] + item.quote;
                END IF;
                IF enforced[slot] THEN
                    tightest := least(tightest, limits[slot] - settled_now[slot] - held_now[slot]);
                END IF;
            END LOOP;
        END IF;
        id := item.id;
        remaining := tightest;
        shadow := is_shadow;
        on_key := key_ids[refusing] IS NOT NULL;
        period := periods[refusing];
        limit_micro := limits[refusing];
        settled := settled_now[refusing];
        held := held_now[refusing];
        resets_at := ends[refusing];
        RETURN NEXT;
    END LOOP;
    IF placed_ids = '{}' THEN
        RETURN;
    END IF;

    UPDATE quota_periods c SET held = c.held + a.added
    FROM unnest(counter_ids, added, limits, enforced) AS a(counter, added, limit_micro, enforced)
    WHERE c.id = a.counter AND a.added <> 0
      AND (NOT a.enforced OR c.settled + c.held + a.added <= a.limit_micro);
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> (SELECT count(*) FROM unnest(added) AS a(added) WHERE a.added <> 0) THEN
        RAISE EXCEPTION 'a counter would pass its limit';
    END IF;

    WITH made AS (
        INSERT INTO holds AS h (id, team_id, key_id, request_id, operation, model, quote, flags, counters, placed_at)
        SELECT i.id, i.team, i.key, i.request, i.operation, i.model, i.quote,
               CASE WHEN p.shadow THEN '{shadow_refused}' ELSE '{}' END::text[], p.counters::bigint[], now()
        FROM ROWS FROM (jsonb_to_recordset(items)
                        AS (id uuid, team uuid, key text, request text, operation text, model text, quote bigint))
             WITH ORDINALITY AS i(id, team, key, request, operation, model, quote, n)
        JOIN unnest(placed_numbers, placed_counters, placed_shadow) AS p(n, counters, shadow) ON p.n = i.n
        RETURNING h.id, h.team_id, h.key_id, h.operation, h.model, h.quote, h.flags, h.counters
    ), entered AS (
        INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled)
        SELECT m.id, 'place', m.team_id, m.key_id, m.counters, m.quote, 0 FROM made m
    )
    INSERT INTO usage_buckets AS u (starts_at, team_id, key_id, model, operation, day, requests, shadow_refused)
    SELECT date_bin('15 minutes', now(), '2000-01-01T00:00:00Z'), m.team_id, m.key_id, m.model, m.operation,
           (now() AT TIME ZONE t.time_zone)::date, m.requests, m.shadow_refused
    FROM (
        SELECT m.team_id, m.key_id, m.model, m.operation, count(*) AS requests,
               count(*) FILTER (WHERE m.flags <> '{}') AS shadow_refused
        FROM made m GROUP BY m.team_id, m.key_id, m.model, m.operation
    ) m
    JOIN teams t ON t.id = m.team_id
    ORDER BY m.team_id, m.key_id, m.model, m.operation
    ON CONFLICT (starts_at, team_id, key_id, model, operation)
    DO UPDATE SET requests = u.requests + excluded.requests,
                  shadow_refused = u.shadow_refused + excluded.shadow_refused;
END
$$;
"""

# items: [{id, state, settled, estimated, flags, reason, actor, sent}]; state is settled, released or unknown;
# sent are the call's attempts [{number, upstream_key, outcome, status, milliseconds}], kept whatever the state.
# changed is false when the hold had ended before (or, for unknown, was unknown already): the first word counts, of
# a batch too.
END = """
CREATE FUNCTION gateway_end(items jsonb)
RETURNS TABLE (id uuid, changed boolean, remaining bigint)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    item_ids uuid[];
    is_wrong boolean;
    is_sent boolean;
    hold_ids uuid[];
    hold_states text[];
    hold_counters text[];
    done_ids uuid[];
    done_before text[];
    moved_ids bigint[];
    moved_quotes bigint[];
    moved_settled bigint[];
BEGIN
    SELECT array_agg(i.id), bool_or(i.sent <> '[]'),
           bool_or(coalesce(i.state NOT IN ('settled', 'released', 'unknown')
                            OR i.state = 'settled' AND coalesce(i.settled, -1) < 0, true))
    INTO item_ids, is_sent, is_wrong
    FROM jsonb_to_recordset(items) AS i(id uuid, state text, settled bigint, sent jsonb);
    IF is_wrong THEN
        RAISE EXCEPTION 'a hold ends settled with its cost, released, or unknown'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    SELECT array_agg(h.id), array_agg(h.state), array_agg(h.counters::text)
    INTO hold_ids, hold_states, hold_counters
    FROM (
        SELECT h.id, h.state, h.counters FROM holds h WHERE h.id = ANY (item_ids) ORDER BY h.id FOR NO KEY UPDATE
    ) h;

    WITH wanted AS MATERIALIZED (
        SELECT DISTINCT ON (i.id) i.*
        FROM ROWS FROM (jsonb_to_recordset(items)
                        AS (id uuid, state text, settled bigint, estimated boolean, flags text[], reason text,
                            actor text, sent jsonb))
             WITH ORDINALITY AS i(id, state, settled, estimated, flags, reason, actor, sent, n)
        ORDER BY i.id, i.n
    ), done AS (
        UPDATE holds h
        SET state = w.state, settled = CASE WHEN w.state = 'settled' THEN w.settled END,
            estimated = w.state = 'settled' AND coalesce(w.estimated, false),
            flags = h.flags || coalesce(w.flags, '{}')
                || CASE WHEN w.state = 'settled' AND w.settled > h.quote
                         AND NOT 'overrun' = ANY (coalesce(w.flags, '{}')) THEN '{overrun}' ELSE '{}' END::text[],
            reason = coalesce(w.reason, h.reason),
            upstream_key_id = coalesce((w.sent -> -1 ->> 'upstream_key')::uuid, h.upstream_key_id),
            ended_at = CASE WHEN w.state <> 'unknown' THEN now() END
        FROM wanted w JOIN unnest(hold_ids, hold_states) AS b(id, before) ON b.id = w.id
        WHERE h.id = w.id AND b.before IN ('held', 'unknown') AND b.before <> w.state
        RETURNING h.id, h.state, h.quote, h.settled, h.team_id, h.key_id, h.counters, b.before, w.actor, w.reason
    ), entered AS (
        INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, actor, reason)
        SELECT d.id, e.kind, d.team_id, d.key_id, d.counters, e.held, e.settled, d.actor, d.reason
        FROM done d CROSS JOIN LATERAL (
            VALUES ('settle', -d.quote, least(d.settled, d.quote), d.state = 'settled'),
                   ('overrun', 0, d.settled - d.quote, d.state = 'settled' AND d.settled > d.quote),
                   ('release', -d.quote, 0, d.state = 'released')
        ) AS e(kind, held, settled, applies)
        WHERE e.applies
    ), moved AS (
        SELECT c.id, sum(d.quote)::bigint AS quote, sum(coalesce(d.settled, 0))::bigint AS settled
        FROM done d CROSS JOIN LATERAL unnest(d.counters) AS c(id)
        WHERE d.state <> 'unknown' GROUP BY c.id
    )
    SELECT (SELECT array_agg(d.id) FROM done d), (SELECT array_agg(d.before) FROM done d),
           array_agg(m.id), array_agg(m.quote), array_agg(m.settled)
    INTO done_ids, done_before, moved_ids, moved_quotes, moved_settled
    FROM moved m;

    PERFORM FROM quota_periods p WHERE p.id = ANY (moved_ids) ORDER BY p.id FOR NO KEY UPDATE;
    UPDATE quota_periods p SET held = p.held - m.quote, settled = p.settled + m.settled
    FROM unnest(moved_ids, moved_quotes, moved_settled) AS m(id, quote, settled)
    WHERE p.id = m.id;

    INSERT INTO usage_buckets AS u
        (starts_at, team_id, key_id, model, operation, day, requests, failed, credits, estimated_credits)
    SELECT d.starts_at, d.team_id, d.key_id, d.model, d.operation, (d.placed_at AT TIME ZONE t.time_zone)::date,
           0, d.failed, d.credits, d.estimated
    FROM (
        SELECT date_bin('15 minutes', h.placed_at, '2000-01-01T00:00:00Z') AS starts_at, h.team_id, h.key_id, h.model,
               h.operation, min(h.placed_at) AS placed_at,
               sum((h.state <> 'settled')::integer - (b.before = 'unknown')::integer) AS failed,
               sum(coalesce(h.settled, 0)) AS credits,
               sum(CASE WHEN h.estimated THEN coalesce(h.settled, 0) ELSE 0 END) AS estimated
        FROM holds h JOIN unnest(done_ids, done_before) AS b(id, before) ON b.id = h.id
        WHERE h.id = ANY (done_ids)
        GROUP BY 1, 2, 3, 4, 5
    ) d
    JOIN teams t ON t.id = d.team_id
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (starts_at, team_id, key_id, model, operation)
    DO UPDATE SET failed = u.failed + excluded.failed, credits = u.credits + excluded.credits,
                  estimated_credits = u.estimated_credits + excluded.estimated_credits;

    IF is_sent THEN
        INSERT INTO attempts (hold_id, number, upstream_key_id, outcome, status, milliseconds)
        SELECT i.id, s.number, s.upstream_key, s.outcome, s.status, s.milliseconds
        FROM jsonb_to_recordset(items) AS i(id uuid, sent jsonb)
        CROSS JOIN LATERAL jsonb_to_recordset(coalesce(i.sent, '[]'))
             AS s(number smallint, upstream_key uuid, outcome text, status smallint, milliseconds integer)
        WHERE i.id = ANY (hold_ids)
        ON CONFLICT DO NOTHING;
    END IF;

    RETURN QUERY
    WITH tight AS (
        SELECT k.counters, min(q.limit_micro - p.settled - p.held) AS remaining
        FROM (SELECT DISTINCT u.counters FROM unnest(hold_counters) AS u(counters)) k
        CROSS JOIN LATERAL unnest(k.counters::bigint[]) AS c(id)
        JOIN quota_periods p ON p.id = c.id
        JOIN quotas q ON q.id = p.quota_id AND q.enforce
        GROUP BY k.counters
    )
    SELECT i.id,
           coalesce(i.id = ANY (done_ids), false) AND row_number() OVER (PARTITION BY i.id ORDER BY i.n) = 1,
           tight.remaining
    FROM unnest(item_ids) WITH ORDINALITY AS i(id, n)
    LEFT JOIN unnest(hold_ids, hold_counters) AS h(id, counters) ON h.id = i.id
    LEFT JOIN tight ON tight.counters = h.counters
    ORDER BY i.n;
END
$$;
"""

DROP = """
DROP FUNCTION gateway_end(jsonb);
DROP FUNCTION gateway_place(jsonb);
DROP FUNCTION gateway_open_counters(uuid);
DROP FUNCTION gateway_lock_team(uuid, boolean);
DROP FUNCTION gateway_uuid7();
DROP FUNCTION gateway_period(text, text, timestamptz);
DROP FUNCTION gateway_first_instant(timestamp, text);
"""


def upgrade() -> None:
    for script in (PERIODS, COUNTERS, PLACE, END):
        op.get_bind().exec_driver_sql(script.replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DROP)
