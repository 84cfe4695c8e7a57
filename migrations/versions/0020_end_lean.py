"""Holds end, and are bound, in fewer statements, whose plans touch the months of their own holds only."""

from __future__ import annotations

from types import ModuleType

from alembic import context, op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# Items as the process sends them: `end_item` and `bind_item` in credits/terms.py.
TYPES = """
CREATE TYPE gateway_ending AS (
    id uuid, state text, settled bigint, estimated boolean, flags text[], reason text, actor text, sent jsonb
);
CREATE TYPE gateway_binding AS (
    id uuid, team uuid, key text, operation text, model text, task text, upstream_key uuid, status text, body text,
    charge bigint, quote bigint, sent jsonb
);
"""

# As before, but for `wait`: how long to wait for any lock, NULL as the session does. Holds are locked by id, then
# counters by id, then buckets by key. Of a hold that is named twice the first word counts.
# Of holds only those between the lowest and the highest id are looked at, so in their own month's partition.
END = """
CREATE FUNCTION gateway_end(items jsonb, wait text)
RETURNS TABLE (id uuid, changed boolean, remaining bigint)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET jit = off AS $$
#variable_conflict use_column
DECLARE
    endings gateway_ending[];
    ending gateway_ending;
    ids uuid[];
    lowest uuid;
    highest uuid;
    is_sent boolean := false;
    hold holds;
    hold_ids uuid[];
    known holds[];
    done holds[];
    done_ids uuid[];
    done_before text[];
    moved bigint[];
    counters bigint[];  -- of every hold, changed or not
    quota record;
    left_ids bigint[];
    left_now bigint[];
    counter bigint;
BEGIN
    IF wait IS NOT NULL THEN
        wait := set_config('lock_timeout', wait, true);
    END IF;
    endings := ARRAY(SELECT i FROM jsonb_populate_recordset(NULL::gateway_ending, items) i);
    FOREACH ending IN ARRAY endings LOOP
        IF coalesce(ending.state NOT IN ('settled', 'released', 'unknown')
                    OR ending.state = 'settled' AND coalesce(ending.settled, -1) < 0, true) THEN
            RAISE EXCEPTION 'a hold ends settled with its cost, released, or unknown'
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        ids := ids || ending.id;
        lowest := least(lowest, ending.id);
        highest := greatest(highest, ending.id);
        is_sent := is_sent OR coalesce(ending.sent <> '[]', false);
    END LOOP;

    FOR hold IN
        SELECT h.* FROM holds h WHERE h.id = ANY (ids) AND h.id BETWEEN lowest AND highest
        ORDER BY h.id FOR NO KEY UPDATE
    LOOP
        known := known || hold;
        hold_ids := hold_ids || hold.id;
        counters := counters || hold.counters;
        ending := endings[array_position(ids, hold.id)];
        CONTINUE WHEN hold.state NOT IN ('held', 'unknown') OR hold.state = ending.state;
        done_ids := done_ids || hold.id;
        done_before := done_before || hold.state;
        hold.state := ending.state;
        hold.settled := CASE WHEN ending.state = 'settled' THEN ending.settled END;
        hold.estimated := ending.state = 'settled' AND coalesce(ending.estimated, false);
        hold.flags := hold.flags || coalesce(ending.flags, '{}');
        IF hold.settled > hold.quote AND NOT 'overrun' = ANY (coalesce(ending.flags, '{}')) THEN
            hold.flags := hold.flags || 'overrun'::text;
        END IF;
        hold.reason := coalesce(ending.reason, hold.reason);
        hold.upstream_key_id := coalesce((ending.sent -> -1 ->> 'upstream_key')::uuid, hold.upstream_key_id);
        hold.ended_at := CASE WHEN ending.state <> 'unknown' THEN now() END;
        done := done || hold;
        IF hold.state <> 'unknown' THEN
            moved := moved || hold.counters;
        END IF;
    END LOOP;

    IF done IS NOT NULL THEN
        UPDATE holds h
        SET state = d.state, settled = d.settled, estimated = d.estimated, flags = d.flags, reason = d.reason,
            upstream_key_id = d.upstream_key_id, ended_at = d.ended_at
        FROM unnest(done) d WHERE h.id = d.id AND h.id = ANY (ids) AND h.id BETWEEN lowest AND highest;
        INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, actor, reason)
        SELECT d.id, e.kind, d.team_id, d.key_id, d.counters, e.held, e.settled,
               endings[array_position(ids, d.id)].actor, endings[array_position(ids, d.id)].reason
        FROM unnest(done) d
        CROSS JOIN LATERAL (
            VALUES ('settle', -d.quote, least(d.settled, d.quote), d.state = 'settled'),
                   ('overrun', 0, d.settled - d.quote, d.state = 'settled' AND d.settled > d.quote),
                   ('release', -d.quote, 0, d.state = 'released')
        ) AS e(kind, held, settled, applies)
        WHERE e.applies;
    END IF;
    IF moved <> '{}' THEN
        PERFORM FROM quota_periods p WHERE p.id = ANY (moved) ORDER BY p.id FOR NO KEY UPDATE;
        UPDATE quota_periods p SET held = p.held - m.quote, settled = p.settled + m.settled
        FROM (
            SELECT c.id, sum(d.quote)::bigint AS quote, sum(coalesce(d.settled, 0))::bigint AS settled
            FROM unnest(done) d CROSS JOIN LATERAL unnest(d.counters) AS c(id)
            WHERE d.state <> 'unknown' GROUP BY c.id
        ) m
        WHERE p.id = m.id;
    END IF;
    IF done IS NOT NULL THEN
        INSERT INTO usage_buckets AS u
            (starts_at, team_id, key_id, model, operation, day, requests, failed, credits, estimated_credits)
        SELECT date_bin('15 minutes', d.placed_at, '2000-01-01T00:00:00Z'), d.team_id, d.key_id, d.model, d.operation,
               (min(d.placed_at) AT TIME ZONE min(t.time_zone))::date, 0,
               sum((d.state <> 'settled')::integer - (done_before[d.ordinality] = 'unknown')::integer),
               sum(coalesce(d.settled, 0)), sum(CASE WHEN d.estimated THEN coalesce(d.settled, 0) ELSE 0 END)
        FROM unnest(done) WITH ORDINALITY AS d JOIN teams t ON t.id = d.team_id
        GROUP BY 1, 2, 3, 4, 5
        ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT (starts_at, team_id, key_id, model, operation)
        DO UPDATE SET failed = u.failed + excluded.failed, credits = u.credits + excluded.credits,
                      estimated_credits = u.estimated_credits + excluded.estimated_credits;
    END IF;
    IF is_sent THEN
        INSERT INTO attempts (hold_id, number, upstream_key_id, outcome, status, milliseconds)
        SELECT i.id, s.number, s.upstream_key, s.outcome, s.status, s.milliseconds
        FROM unnest(endings) i
        CROSS JOIN LATERAL jsonb_to_recordset(coalesce(i.sent, '[]'))
             AS s(number smallint, upstream_key uuid, outcome text, status smallint, milliseconds integer)
        WHERE i.id = ANY (hold_ids)
        ON CONFLICT DO NOTHING;
    END IF;

    FOR quota IN
        SELECT p.id, q.limit_micro - p.settled - p.held AS micro
        FROM quota_periods p JOIN quotas q ON q.id = p.quota_id
        WHERE q.enforce AND p.id = ANY (counters)
    LOOP
        left_ids := left_ids || quota.id;
        left_now := left_now || quota.micro;
    END LOOP;
    FOR n IN 1 .. cardinality(ids) LOOP
        id := ids[n];
        changed := coalesce(ids[n] = ANY (done_ids), false) AND array_position(ids, ids[n]) = n;
        remaining := NULL;
        FOREACH counter IN ARRAY coalesce(known[array_position(hold_ids, ids[n])].counters, '{}') LOOP
            remaining := least(remaining, left_now[array_position(left_ids, counter)]);
        END LOOP;
        RETURN NEXT;
    END LOOP;
END
$$;
"""

BIND = """
CREATE FUNCTION gateway_bind(items jsonb, wait text) RETURNS TABLE (id uuid, taken boolean)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET jit = off AS $$
#variable_conflict use_column
DECLARE
    bindings gateway_binding[];
    binding gateway_binding;
    ids uuid[];
    lowest uuid;
    highest uuid;
    taken_ids uuid[];
BEGIN
    IF wait IS NOT NULL THEN
        wait := set_config('lock_timeout', wait, true);
    END IF;
    bindings := ARRAY(SELECT i FROM jsonb_populate_recordset(NULL::gateway_binding, items) i);
    FOREACH binding IN ARRAY bindings LOOP
        ids := ids || binding.id;
        lowest := least(lowest, binding.id);
        highest := greatest(highest, binding.id);
    END LOOP;

    INSERT INTO tasks (id, team_id, key_id, hold_id, upstream_key_id, model, operation, status, body, charge, quote)
    SELECT i.task, i.team, i.key, i.id, i.upstream_key, i.model, i.operation, i.status, decode(i.body, 'base64'),
           i.charge, i.quote
    FROM unnest(bindings) WITH ORDINALITY AS i
    ORDER BY i.task, i.ordinality
    ON CONFLICT DO NOTHING;
    taken_ids := ARRAY(
        SELECT i.id FROM unnest(bindings) i JOIN tasks t ON t.id = i.task WHERE t.hold_id <> i.id
    );

    PERFORM FROM holds h WHERE h.id = ANY (ids) AND h.id BETWEEN lowest AND highest ORDER BY h.id FOR NO KEY UPDATE;
    UPDATE holds h SET task_id = i.task, upstream_key_id = i.upstream_key
    FROM unnest(bindings) i
    WHERE h.id = i.id AND h.id = ANY (ids) AND h.id BETWEEN lowest AND highest
      AND (h.task_id, h.upstream_key_id) IS DISTINCT FROM (i.task, i.upstream_key);
    IF taken_ids <> '{}' THEN
        PERFORM FROM gateway_end((
            SELECT jsonb_agg(jsonb_build_object('id', t.id, 'state', 'unknown',
                                                'reason', 'task id already recorded'))
            FROM unnest(taken_ids) AS t(id)), NULL);
    END IF;

    INSERT INTO attempts (hold_id, number, upstream_key_id, outcome, status, milliseconds)
    SELECT i.id, s.number, s.upstream_key, s.outcome, s.status, s.milliseconds
    FROM unnest(bindings) i
    CROSS JOIN LATERAL jsonb_to_recordset(coalesce(i.sent, '[]'))
         AS s(number smallint, upstream_key uuid, outcome text, status smallint, milliseconds integer)
    ON CONFLICT DO NOTHING;

    RETURN QUERY
    SELECT i.id, i.id = ANY (taken_ids) FROM unnest(ids) WITH ORDINALITY AS i(id, n) ORDER BY i.n;
END
$$;
"""

# What workers of the releases before call.
BEFORE = """
CREATE OR REPLACE FUNCTION gateway_end(items jsonb) RETURNS TABLE (id uuid, changed boolean, remaining bigint)
LANGUAGE sql AS $$
    SELECT * FROM gateway_end(items, NULL)
$$;
CREATE OR REPLACE FUNCTION gateway_bind(items jsonb) RETURNS TABLE (id uuid, taken boolean) LANGUAGE sql AS $$
    SELECT * FROM gateway_bind(items, NULL)
$$;
"""

DROP = """
DROP FUNCTION gateway_bind(jsonb, text);
DROP FUNCTION gateway_end(jsonb, text);
DROP TYPE gateway_binding;
DROP TYPE gateway_ending;
"""


def upgrade() -> None:
    for script in (TYPES, END, BIND, BEFORE):
        _execute(script)


def downgrade() -> None:
    binds = _revision("0011")
    _execute(_revision("0002").END.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    _execute(binds._bind(binds.BIND))
    _execute(DROP)


def _revision(name: str) -> ModuleType:
    script = context.script.get_revision(name)
    if script is None:
        raise LookupError(f"there is no revision {name}")
    return script.module


def _execute(script: str) -> None:
    op.get_bind().exec_driver_sql(script.replace("%", "%%"))  # the driver reads a lone % as a placeholder
