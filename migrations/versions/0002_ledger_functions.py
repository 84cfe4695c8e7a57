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
PERIODS = """
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
    starts_at := first AT TIME ZONE zone;
    ends_at := (first + ('1 ' || kind)::interval) AT TIME ZONE zone;
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
# A counter starts with what its period has already spent and holds; the open holds are put on it.
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
    FOR quota IN
        SELECT q.id, q.key_id, p.starts_at, p.ends_at
        FROM quotas q
        JOIN teams t ON t.id = q.team_id
        CROSS JOIN LATERAL gateway_period(q.period, t.time_zone, now()) p
        WHERE q.team_id = team
          AND NOT EXISTS (SELECT FROM quota_periods c WHERE c.quota_id = q.id AND c.starts_at = p.starts_at)
        ORDER BY q.id
    LOOP
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
        RETURNING id INTO counter;
        IF spent <> 0 OR open_now <> 0 THEN
            UPDATE holds SET counters = counters || counter
            WHERE state IN ('held', 'unknown') AND team_id = team AND placed_at >= quota.starts_at
              AND (quota.key_id IS NULL OR key_id = quota.key_id);
            INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, reason)
            VALUES (gateway_uuid7(), 'carry', team, quota.key_id, ARRAY[counter], open_now, spent,
                    'what the period had before this counter');
        END IF;
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
"""

# items: [{id, team, key, request, operation, model, quote}], some dozens at most, decided in their order.
# outcome: placed | refused (with the quota that refused) | no_counter (call gateway_open_counters, then again).
# A hold that is there already counts as placed and changes nothing, so a batch can be sent again as it is.
PLACE = """
CREATE FUNCTION gateway_place(items jsonb)
RETURNS TABLE (id uuid, outcome text, remaining bigint, shadow boolean, on_key boolean, period text,
               limit_micro bigint, settled bigint, held bigint, resets_at timestamptz)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    team uuid;
    item record;
    slot integer;
    refusing integer;
    counter_ids bigint[];
    quota_ids uuid[];
    team_ids uuid[];
    key_ids text[];
    periods text[];
    limits bigint[];
    enforced boolean[];
    ends timestamptz[];
    settled_now bigint[];
    held_now bigint[];
    added bigint[];
    placed_ids uuid[] := '{}';
    shadow_ids uuid[] := '{}';
    is_shadow boolean;
    tightest bigint;
BEGIN
    FOR team IN SELECT DISTINCT (i ->> 'team')::uuid AS t FROM jsonb_array_elements(items) i ORDER BY t LOOP
        PERFORM gateway_lock_team(team, false);
    END LOOP;

    SELECT array_agg(c.id ORDER BY c.id) INTO counter_ids
    FROM (SELECT DISTINCT (i ->> 'team')::uuid AS team, i ->> 'key' AS key FROM jsonb_array_elements(items) i) k
    JOIN quotas q ON q.team_id = k.team AND (q.key_id IS NULL OR q.key_id = k.key)
    JOIN teams t ON t.id = q.team_id
    CROSS JOIN LATERAL gateway_period(q.period, t.time_zone, now()) p
    JOIN quota_periods c ON c.quota_id = q.id AND c.starts_at = p.starts_at;
    PERFORM FROM quota_periods c WHERE c.id = ANY (counter_ids) ORDER BY c.id FOR NO KEY UPDATE;

    -- Every quota that applies to anything in the batch, with its counter as it is now that it is locked.
    SELECT array_agg(c.id ORDER BY c.id, q.id), array_agg(q.id ORDER BY c.id, q.id),
           array_agg(q.team_id ORDER BY c.id, q.id), array_agg(q.key_id ORDER BY c.id, q.id),
           array_agg(q.period ORDER BY c.id, q.id), array_agg(q.limit_micro ORDER BY c.id, q.id),
           array_agg(q.enforce ORDER BY c.id, q.id), array_agg(p.ends_at ORDER BY c.id, q.id),
           array_agg(c.settled ORDER BY c.id, q.id), array_agg(c.held ORDER BY c.id, q.id)
    INTO counter_ids, quota_ids, team_ids, key_ids, periods, limits, enforced, ends, settled_now, held_now
    FROM (SELECT DISTINCT (i ->> 'team')::uuid AS team FROM jsonb_array_elements(items) i) k
    JOIN quotas q ON q.team_id = k.team
     AND (q.key_id IS NULL OR q.key_id IN (SELECT i ->> 'key' FROM jsonb_array_elements(items) i))
    JOIN teams t ON t.id = q.team_id
    CROSS JOIN LATERAL gateway_period(q.period, t.time_zone, now()) p
    LEFT JOIN quota_periods c ON c.quota_id = q.id AND c.starts_at = p.starts_at;
    added := array_fill(0::bigint, ARRAY[coalesce(array_length(quota_ids, 1), 0)]);

    FOR item IN
        SELECT i.*, s.slots
        FROM ROWS FROM (jsonb_to_recordset(items)
                        AS (id uuid, team uuid, key text, request text, operation text, model text, quote bigint))
             WITH ORDINALITY AS i(id, team, key, request, operation, model, quote, n)
        LEFT JOIN LATERAL (
            SELECT array_agg(u.slot::integer) AS slots
            FROM unnest(team_ids, key_ids) WITH ORDINALITY AS u(team, key, slot)
            WHERE u.team = i.team AND (u.key IS NULL OR u.key = i.key)
        ) s ON true
        ORDER BY i.n
    LOOP
        refusing := NULL;
        is_shadow := false;
        tightest := NULL;
        outcome := 'placed';
        IF item.id = ANY (placed_ids) OR EXISTS (SELECT FROM holds h WHERE h.id = item.id) THEN
            item.slots := NULL;  -- sent before: nothing to add
        ELSE
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
            IF outcome = 'placed' THEN
                INSERT INTO holds (id, team_id, key_id, request_id, operation, model, quote, flags, counters)
                VALUES (item.id, item.team, item.key, item.request, item.operation, item.model, item.quote,
                        CASE WHEN is_shadow THEN '{shadow_refused}' ELSE '{}' END::text[],
                        ARRAY (SELECT counter_ids[x] FROM unnest(item.slots) x));
                INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled)
                VALUES (item.id, 'place', item.team, item.key,
                        ARRAY (SELECT counter_ids[x] FROM unnest(item.slots) x), item.quote, 0);
                placed_ids := placed_ids || item.id;
                IF is_shadow THEN
                    shadow_ids := shadow_ids || item.id;
                END IF;
                FOREACH slot IN ARRAY coalesce(item.slots, '{}') LOOP
                    held_now[slot] := held_now[slot] + item.quote;
                    added[slot] := added[slot] + item.quote;
                    IF enforced[slot] THEN
                        tightest := least(tightest, limits[slot] - settled_now[slot] - held_now[slot]);
                    END IF;
                END LOOP;
            END IF;
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

    FOR slot IN 1 .. coalesce(array_length(counter_ids, 1), 0) LOOP
        CONTINUE WHEN added[slot] = 0;
        UPDATE quota_periods c SET held = c.held + added[slot]
        WHERE c.id = counter_ids[slot]
          AND (NOT enforced[slot] OR c.settled + c.held + added[slot] <= limits[slot]);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'counter % would pass its limit', counter_ids[slot];
        END IF;
    END LOOP;

    INSERT INTO usage_buckets AS u (starts_at, team_id, key_id, model, operation, day, requests, shadow_refused)
    SELECT date_bin('15 minutes', now(), '2000-01-01T00:00:00Z'), i.team, i.key, i.model, i.operation,
           (now() AT TIME ZONE t.time_zone)::date, count(*), count(*) FILTER (WHERE i.id = ANY (shadow_ids))
    FROM jsonb_to_recordset(items) AS i(id uuid, team uuid, key text, model text, operation text)
    JOIN teams t ON t.id = i.team
    WHERE i.id = ANY (placed_ids)
    GROUP BY i.team, i.key, i.model, i.operation, t.time_zone
    ORDER BY i.team, i.key, i.model, i.operation
    ON CONFLICT (starts_at, team_id, key_id, model, operation)
    DO UPDATE SET requests = u.requests + excluded.requests,
                  shadow_refused = u.shadow_refused + excluded.shadow_refused;
END
$$;
"""

# items: [{id, state, settled, estimated, flags, reason, actor, sent}]; state is settled, released or unknown;
# sent are the call's attempts [{number, upstream_key, outcome, status, milliseconds}], kept whatever the state.
# changed is false when the hold had ended before (or, for unknown, was unknown already): the first word counts.
END = """
CREATE FUNCTION gateway_end(items jsonb)
RETURNS TABLE (id uuid, changed boolean, remaining bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    ended record;
    counter record;
BEGIN
    PERFORM FROM holds h
    WHERE h.id IN (SELECT (i ->> 'id')::uuid FROM jsonb_array_elements(items) i)
    ORDER BY h.id FOR NO KEY UPDATE;

    -- One pass over the holds; what follows from it is gathered in arrays, so that no row is read twice.
    WITH wanted AS (
        SELECT DISTINCT ON (i.id) i.*
        FROM jsonb_to_recordset(items)
             AS i(id uuid, state text, settled bigint, estimated boolean, flags text[], reason text, actor text,
                  sent jsonb)
        ORDER BY i.id
    ), was AS (
        SELECT h.id, h.state FROM holds h JOIN wanted w ON w.id = h.id
        WHERE h.state IN ('held', 'unknown') AND h.state <> w.state
    ), done AS (
        UPDATE holds h
        SET state = w.state, settled = w.settled, estimated = coalesce(w.estimated, false),
            flags = h.flags || coalesce(w.flags, '{}'), reason = coalesce(w.reason, h.reason),
            upstream_key_id = coalesce((w.sent -> -1 ->> 'upstream_key')::uuid, h.upstream_key_id),
            ended_at = CASE WHEN w.state <> 'unknown' THEN now() END
        FROM wanted w JOIN was ON was.id = w.id
        WHERE h.id = w.id
        RETURNING h.id, h.state, h.quote, h.settled, h.estimated, h.team_id, h.key_id, h.model, h.operation,
                  h.counters, h.placed_at, was.state AS before, w.actor, w.reason
    ), entered AS (
        INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, actor, reason)
        SELECT d.id, e.kind, d.team_id, d.key_id, d.counters, e.held, e.settled, d.actor, d.reason
        FROM done d CROSS JOIN LATERAL (
            VALUES ('settle', -d.quote, least(d.settled, d.quote), d.state = 'settled'),
                   ('overrun', 0, d.settled - d.quote, d.state = 'settled' AND d.settled > d.quote),
                   ('release', -d.quote, 0, d.state = 'released')
        ) AS e(kind, held, settled, applies)
        WHERE e.applies
    ), used AS (
        SELECT jsonb_agg(u) AS rows FROM (
            SELECT date_bin('15 minutes', d.placed_at, '2000-01-01T00:00:00Z') AS starts_at, d.team_id, d.key_id,
                   d.model, d.operation, min(d.placed_at) AS placed_at,
                   sum(CASE WHEN d.state = 'settled' THEN 0 ELSE 1 END
                       - CASE WHEN d.before = 'unknown' THEN 1 ELSE 0 END) AS failed,
                   sum(coalesce(d.settled, 0)) AS credits,
                   sum(CASE WHEN d.estimated THEN coalesce(d.settled, 0) ELSE 0 END) AS estimated
            FROM done d GROUP BY 1, 2, 3, 4, 5
        ) u
    ), moved AS (
        SELECT jsonb_agg(m ORDER BY m.counter) AS rows FROM (
            SELECT c.c AS counter, sum(d.quote) AS quote, sum(coalesce(d.settled, 0)) AS settled
            FROM done d CROSS JOIN LATERAL unnest(d.counters) AS c(c)
            WHERE d.state <> 'unknown' GROUP BY c.c
        ) m
    )
    SELECT (SELECT array_agg(d.id) FROM done d) AS ids, used.rows AS used, moved.rows AS moved
    INTO ended FROM used, moved;

    FOR counter IN
        SELECT * FROM jsonb_to_recordset(ended.moved) AS m(counter bigint, quote bigint, settled bigint)
        ORDER BY m.counter
    LOOP
        UPDATE quota_periods p SET held = p.held - counter.quote, settled = p.settled + counter.settled
        WHERE p.id = counter.counter;
    END LOOP;

    INSERT INTO usage_buckets AS u
        (starts_at, team_id, key_id, model, operation, day, requests, failed, credits, estimated_credits)
    SELECT d.starts_at, d.team_id, d.key_id, d.model, d.operation, (d.placed_at AT TIME ZONE t.time_zone)::date,
           0, d.failed, d.credits, d.estimated
    FROM jsonb_to_recordset(ended.used)
         AS d(starts_at timestamptz, team_id uuid, key_id text, model text, operation text, placed_at timestamptz,
              failed integer, credits bigint, estimated bigint)
    JOIN teams t ON t.id = d.team_id
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (starts_at, team_id, key_id, model, operation)
    DO UPDATE SET failed = u.failed + excluded.failed, credits = u.credits + excluded.credits,
                  estimated_credits = u.estimated_credits + excluded.estimated_credits;

    INSERT INTO attempts (hold_id, number, upstream_key_id, outcome, status, milliseconds)
    SELECT i.id, s.number, s.upstream_key, s.outcome, s.status, s.milliseconds
    FROM jsonb_to_recordset(items) AS i(id uuid, sent jsonb)
    CROSS JOIN LATERAL jsonb_to_recordset(coalesce(i.sent, '[]'))
         AS s(number smallint, upstream_key uuid, outcome text, status smallint, milliseconds integer)
    ON CONFLICT DO NOTHING;

    RETURN QUERY
    SELECT i.id, coalesce(i.id = ANY (ended.ids), false), least_left.remaining
    FROM jsonb_to_recordset(items) AS i(id uuid)
    LEFT JOIN LATERAL (
        SELECT min(q.limit_micro - p.settled - p.held) AS remaining
        FROM holds h
        JOIN quota_periods p ON p.id = ANY (h.counters)
        JOIN quotas q ON q.id = p.quota_id AND q.enforce
        WHERE h.id = i.id
    ) least_left ON true;
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
"""


def upgrade() -> None:
    for script in (PERIODS, COUNTERS, PLACE, END):
        op.get_bind().exec_driver_sql(script.replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DROP)
