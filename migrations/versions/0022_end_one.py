"""A hold that ends alone takes plain statements; no statement of a group reads a whole table."""

from __future__ import annotations

from types import ModuleType

from alembic import context, op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# The usual case of one hold: it is held, and ends released, or settled at no more than its quote. Whether it is so the
# statement that ends it sees itself; if it is not, nothing has changed, and the rest of gateway_end has the word. Locks
# are taken in its order: the hold, its counters by id, its bucket.
END_ONE = """
CREATE FUNCTION gateway_end_call(ending gateway_ending, OUT changed boolean, OUT remaining bigint)
LANGUAGE plpgsql AS $$
DECLARE
    hold holds;
    cost bigint := CASE WHEN ending.state = 'settled' THEN ending.settled ELSE 0 END;
BEGIN
    changed := coalesce(ending.state IN ('settled', 'released') AND cost >= 0, false);
    IF NOT changed THEN
        RETURN;
    END IF;
    UPDATE holds h
    SET state = ending.state, settled = CASE WHEN ending.state = 'settled' THEN cost END,
        estimated = ending.state = 'settled' AND coalesce(ending.estimated, false),
        flags = h.flags || coalesce(ending.flags, '{}'), reason = coalesce(ending.reason, h.reason),
        upstream_key_id = coalesce((ending.sent -> -1 ->> 'upstream_key')::uuid, h.upstream_key_id), ended_at = now()
    WHERE h.id = ending.id AND h.state = 'held' AND h.quote >= cost
    RETURNING h.* INTO hold;
    changed := FOUND;
    IF NOT changed THEN
        RETURN;
    END IF;

    INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, actor, reason)
    VALUES (hold.id, CASE ending.state WHEN 'settled' THEN 'settle' ELSE 'release' END, hold.team_id, hold.key_id,
            hold.counters, -hold.quote, cost, ending.actor, ending.reason);
    IF cardinality(hold.counters) > 1 THEN
        PERFORM FROM quota_periods p WHERE p.id = ANY (hold.counters) ORDER BY p.id FOR NO KEY UPDATE;
    END IF;
    WITH moved AS (
        UPDATE quota_periods p SET held = p.held - hold.quote, settled = p.settled + cost
        WHERE p.id = ANY (hold.counters) RETURNING p.quota_id, p.settled + p.held AS used
    )
    SELECT min((SELECT q.limit_micro FROM quotas q WHERE q.id = m.quota_id AND q.enforce) - m.used)
    INTO remaining FROM moved m;
    INSERT INTO usage_buckets AS u
        (starts_at, team_id, key_id, model, operation, day, requests, failed, credits, estimated_credits)
    SELECT date_bin('15 minutes', hold.placed_at, '2000-01-01T00:00:00Z'), t.id, hold.key_id, hold.model,
           hold.operation, (hold.placed_at AT TIME ZONE t.time_zone)::date, 0, (ending.state = 'released')::integer,
           cost, CASE WHEN hold.estimated THEN cost ELSE 0 END
    FROM teams t WHERE t.id = hold.team_id
    ON CONFLICT (starts_at, team_id, key_id, model, operation)
    DO UPDATE SET failed = u.failed + excluded.failed, credits = u.credits + excluded.credits,
                  estimated_credits = u.estimated_credits + excluded.estimated_credits;
    IF ending.sent <> '[]' THEN
        INSERT INTO attempts (hold_id, number, upstream_key_id, outcome, status, milliseconds)
        SELECT hold.id, s.number, s.upstream_key, s.outcome, s.status, s.milliseconds
        FROM jsonb_to_recordset(ending.sent)
             AS s(number smallint, upstream_key uuid, outcome text, status smallint, milliseconds integer)
        ON CONFLICT DO NOTHING;
    END IF;
END
$$;
"""

# As in 0020, but for its first lines, and that no plan can scan a table that is small when the plan is made: what is
# joined to an array by its id is named by `= ANY` too, or is asked for by a subquery.
END = """
CREATE OR REPLACE FUNCTION gateway_end(items jsonb, wait text)
RETURNS TABLE (id uuid, changed boolean, remaining bigint)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET jit = off AS $$
#variable_conflict use_column
DECLARE
    endings gateway_ending[];
    ending gateway_ending;
    one record;
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
    IF jsonb_array_length(items) = 1 THEN
        ending := jsonb_populate_record(NULL::gateway_ending, items -> 0);
        one := gateway_end_call(ending);
        IF one.changed THEN
            RETURN QUERY VALUES (ending.id, true, one.remaining);
            RETURN;
        END IF;
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
        WHERE p.id = m.id AND p.id = ANY (moved);
    END IF;
    IF done IS NOT NULL THEN
        INSERT INTO usage_buckets AS u
            (starts_at, team_id, key_id, model, operation, day, requests, failed, credits, estimated_credits)
        SELECT date_bin('15 minutes', d.placed_at, '2000-01-01T00:00:00Z'), d.team_id, d.key_id, d.model, d.operation,
               (min(d.placed_at) AT TIME ZONE (SELECT t.time_zone FROM teams t WHERE t.id = d.team_id))::date, 0,
               sum((d.state <> 'settled')::integer - (done_before[d.ordinality] = 'unknown')::integer),
               sum(coalesce(d.settled, 0)), sum(CASE WHEN d.estimated THEN coalesce(d.settled, 0) ELSE 0 END)
        FROM unnest(done) WITH ORDINALITY AS d
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
        SELECT p.id, (SELECT q.limit_micro FROM quotas q WHERE q.id = p.quota_id AND q.enforce)
                     - p.settled - p.held AS micro
        FROM quota_periods p WHERE p.id = ANY (counters)
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


def upgrade() -> None:
    for script in (END_ONE, END):
        _execute(script)


def downgrade() -> None:
    _execute(_revision("0020").END.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    _execute("DROP FUNCTION gateway_end_call(gateway_ending)")


def _revision(name: str) -> ModuleType:
    script = context.script.get_revision(name)
    if script is None:
        raise LookupError(f"there is no revision {name}")
    return script.module


def _execute(script: str) -> None:
    op.get_bind().exec_driver_sql(script.replace("%", "%%"))  # the driver reads a lone % as a placeholder
