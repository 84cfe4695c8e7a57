"""A call that is placed alone takes plain statements; no statement of a group reads a whole table."""

from __future__ import annotations

from types import ModuleType

from alembic import context, op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# As in 0019, but that a plan cannot scan a table that is small when the plan is made: what is joined to an array by its
# id is named by `= ANY` too, or is asked for by a subquery.
HOLD = """
CREATE OR REPLACE FUNCTION gateway_hold_calls(calls gateway_call[]) RETURNS gateway_placing[] LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    call gateway_call;
    ids uuid[];
    teams uuid[];
    owners text[];  -- of each call: the first key of its line, whose quotas it counts on
    lowest uuid;
    highest uuid;
    quota record;
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
    known_ids uuid[];
    slot integer;
    slots integer[];
    refusing integer;
    is_new boolean;
    placed gateway_call[];
    answer gateway_placing;
    answers gateway_placing[];
    moved integer;
BEGIN
    FOREACH call IN ARRAY calls LOOP
        ids := ids || call.id;
        teams := teams || call.team;
        lowest := least(lowest, call.id);
        highest := greatest(highest, call.id);
    END LOOP;
    owners := ARRAY(
        SELECT coalesce((SELECT k.quota_key_id FROM team_keys k WHERE k.id = i.key), i.key) FROM unnest(calls) i
    );
    PERFORM gateway_lock_team(t.team, false)
    FROM (SELECT DISTINCT u.team FROM unnest(teams) AS u(team) ORDER BY u.team) t;

    FOR quota IN
        SELECT q.*, c.id AS counter, c.ends_at
        FROM (
            SELECT q.id, q.team_id, q.key_id, q.period, q.limit_micro, q.enforce
            FROM quotas q WHERE q.key_id IS NULL AND q.team_id = ANY (teams)
            UNION ALL
            SELECT q.id, q.team_id, q.key_id, q.period, q.limit_micro, q.enforce
            FROM quotas q WHERE q.key_id IS NOT NULL AND q.key_id = ANY (owners) AND q.team_id = ANY (teams)
        ) q
        LEFT JOIN LATERAL (
            SELECT c.id, c.ends_at FROM quota_periods c
            WHERE c.quota_id = q.id AND c.starts_at <= now() AND (c.ends_at IS NULL OR c.ends_at > now())
            ORDER BY c.starts_at DESC LIMIT 1
        ) c ON true
        ORDER BY c.id, q.id  -- those without a counter come last
    LOOP
        counter_ids := counter_ids || quota.counter;
        team_ids := team_ids || quota.team_id;
        key_ids := key_ids || quota.key_id;
        periods := periods || quota.period;
        limits := limits || quota.limit_micro;
        enforced := enforced || quota.enforce;
        ends := ends || quota.ends_at;
        added := added || 0::bigint;
    END LOOP;
    FOR quota IN
        SELECT c.settled, c.held FROM quota_periods c WHERE c.id = ANY (counter_ids) ORDER BY c.id FOR NO KEY UPDATE
    LOOP
        settled_now := settled_now || quota.settled;
        held_now := held_now || quota.held;
    END LOOP;
    known_ids := ARRAY(SELECT h.id FROM holds h WHERE h.id = ANY (ids) AND h.id BETWEEN lowest AND highest);

    FOR n IN 1 .. cardinality(calls) LOOP
        call := calls[n];
        is_new := call.id <> ALL (known_ids);
        answer := (call.id, 'placed', NULL, false, false, NULL, NULL, NULL, NULL, NULL);
        slots := '{}';
        refusing := NULL;
        call.counters := '{}';
        call.shadow := false;
        FOREACH slot IN ARRAY coalesce(array_positions(team_ids, call.team), '{}') LOOP
            CONTINUE WHEN key_ids[slot] <> owners[n];
            slots := slots || slot;
            call.counters := call.counters || counter_ids[slot];
            IF counter_ids[slot] IS NULL THEN
                answer.outcome := CASE WHEN is_new THEN 'no_counter' ELSE 'placed' END;
            ELSIF settled_now[slot] + held_now[slot] + call.quote > limits[slot] THEN
                IF enforced[slot] THEN
                    refusing := coalesce(refusing, slot);
                ELSE
                    call.shadow := true;
                END IF;
            END IF;
        END LOOP;
        IF NOT is_new THEN
            call.shadow := EXISTS (SELECT FROM holds h WHERE h.id = call.id AND 'shadow_refused' = ANY (h.flags));
        ELSIF answer.outcome = 'placed' AND refusing IS NOT NULL THEN
            answer := (call.id, 'refused', NULL, false, key_ids[refusing] IS NOT NULL, periods[refusing],
                       limits[refusing], settled_now[refusing], held_now[refusing], ends[refusing]);
        ELSIF answer.outcome = 'placed' THEN
            placed := placed || call;
            known_ids := known_ids || call.id;
            FOREACH slot IN ARRAY slots LOOP
                held_now[slot] := held_now[slot] + call.quote;
                added[slot] := added[slot] + call.quote;
            END LOOP;
        END IF;
        answer.shadow := call.shadow;
        IF answer.outcome = 'placed' THEN
            FOREACH slot IN ARRAY slots LOOP
                IF enforced[slot] THEN
                    answer.remaining := least(answer.remaining, limits[slot] - settled_now[slot] - held_now[slot]);
                END IF;
            END LOOP;
        END IF;
        answers := answers || answer;
    END LOOP;
    IF placed IS NULL THEN
        RETURN answers;
    END IF;

    UPDATE quota_periods c SET held = c.held + a.added
    FROM unnest(counter_ids, added, limits, enforced) AS a(counter, added, limit_micro, enforced)
    WHERE c.id = a.counter AND c.id = ANY (counter_ids) AND a.added <> 0
      AND (NOT a.enforced OR c.settled + c.held + a.added <= a.limit_micro);
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(array_remove(added, 0::bigint)) THEN
        RAISE EXCEPTION 'a counter would pass its limit';
    END IF;
    INSERT INTO holds (id, team_id, key_id, request_id, operation, model, quote, flags, counters, placed_at)
    SELECT i.id, i.team, i.key, i.request, i.operation, i.model, i.quote,
           CASE WHEN i.shadow THEN '{shadow_refused}' ELSE '{}' END::text[], i.counters, now()
    FROM unnest(placed) i;
    INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled)
    SELECT i.id, 'place', i.team, i.key, i.counters, i.quote, 0 FROM unnest(placed) i;
    INSERT INTO usage_buckets AS u (starts_at, team_id, key_id, model, operation, day, requests, shadow_refused)
    SELECT date_bin('15 minutes', now(), '2000-01-01T00:00:00Z'), i.team, i.key, i.model, i.operation,
           (now() AT TIME ZONE (SELECT t.time_zone FROM teams t WHERE t.id = i.team))::date,
           count(*), count(*) FILTER (WHERE i.shadow)
    FROM unnest(placed) i
    GROUP BY i.team, i.key, i.model, i.operation
    ORDER BY i.team, i.key, i.model, i.operation
    ON CONFLICT (starts_at, team_id, key_id, model, operation)
    DO UPDATE SET requests = u.requests + excluded.requests,
                  shadow_refused = u.shadow_refused + excluded.shadow_refused;
    RETURN answers;
END
$$;
"""

# The usual case of one call: it is new, and fits every quota. Any other is left to gateway_hold_calls, which finds its
# locks taken, and decides. Locks are taken in the same order, and whether the hold is there is seen under the counters'
# locks.
PLACE_ONE = """
CREATE FUNCTION gateway_place_call(call gateway_call) RETURNS gateway_placing LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    limits bigint[];
    enforced boolean[];
    remaining bigint;
    fits boolean := true;
    is_placed boolean := false;
    answer gateway_placing;
BEGIN
    IF call.fingerprint IS NOT NULL THEN
        INSERT INTO idempotency_records (hold_id, team_id, key_id, operation, fingerprint, expires_at)
        VALUES (call.id, call.team, call.key, call.operation, decode(call.fingerprint, 'hex'),
                now() + make_interval(secs => call.lives))
        ON CONFLICT (hold_id) DO NOTHING;
    END IF;
    PERFORM gateway_lock_team(call.team, false);
    SELECT coalesce(array_agg(q.counter), '{}'), array_agg(q.limit_micro), array_agg(q.enforce)
    INTO call.counters, limits, enforced
    FROM (
        SELECT q.limit_micro, q.enforce, c.id AS counter
        FROM (
            SELECT q.id, q.limit_micro, q.enforce FROM quotas q WHERE q.key_id IS NULL AND q.team_id = call.team
            UNION ALL
            SELECT q.id, q.limit_micro, q.enforce FROM quotas q
            WHERE q.team_id = call.team AND q.key_id = coalesce(
                      (SELECT k.quota_key_id FROM team_keys k WHERE k.id = call.key), call.key)
        ) q
        LEFT JOIN LATERAL (
            SELECT c.id FROM quota_periods c
            WHERE c.quota_id = q.id AND c.starts_at <= now() AND (c.ends_at IS NULL OR c.ends_at > now())
            ORDER BY c.starts_at DESC LIMIT 1
        ) c ON true
        ORDER BY c.id
    ) q;
    IF call.counters <> '{}' THEN  -- a quota without a counter has NULL there, which fits nothing
        SELECT count(*) = cardinality(call.counters) AND bool_and(c.used + call.quote <= c.limit_micro),
               min(c.limit_micro - c.used - call.quote) FILTER (WHERE c.enforce)
        INTO fits, remaining
        FROM (
            SELECT c.settled + c.held AS used, limits[array_position(call.counters, c.id)] AS limit_micro,
                   enforced[array_position(call.counters, c.id)] AS enforce
            FROM quota_periods c WHERE c.id = ANY (call.counters) ORDER BY c.id FOR NO KEY UPDATE
        ) c;
    END IF;
    -- To insert it beside another that ends it would be to wait for who waits for these counters.
    IF fits AND NOT EXISTS (SELECT FROM holds h WHERE h.id = call.id) THEN
        INSERT INTO holds (id, team_id, key_id, request_id, operation, model, quote, counters, placed_at)
        VALUES (call.id, call.team, call.key, call.request, call.operation, call.model, call.quote, call.counters,
                now())
        ON CONFLICT (id) DO NOTHING;
        is_placed := FOUND;
    END IF;
    IF NOT is_placed THEN
        answer := (gateway_hold_calls(ARRAY[call]))[1];
        IF answer.outcome <> 'placed' THEN
            DELETE FROM idempotency_records r WHERE r.hold_id = call.id;
        END IF;
        RETURN answer;
    END IF;

    IF call.quote <> 0 AND call.counters <> '{}' THEN
        UPDATE quota_periods c SET held = c.held + call.quote WHERE c.id = ANY (call.counters);
    END IF;
    INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled)
    VALUES (call.id, 'place', call.team, call.key, call.counters, call.quote, 0);
    INSERT INTO usage_buckets AS u (starts_at, team_id, key_id, model, operation, day, requests)
    SELECT date_bin('15 minutes', now(), '2000-01-01T00:00:00Z'), t.id, call.key, call.model, call.operation,
           (now() AT TIME ZONE t.time_zone)::date, 1
    FROM teams t WHERE t.id = call.team
    ON CONFLICT (starts_at, team_id, key_id, model, operation) DO UPDATE SET requests = u.requests + 1;
    RETURN (call.id, 'placed', remaining, false, false, NULL, NULL, NULL, NULL, NULL)::gateway_placing;
END
$$;
"""

# As in 0019, but for the first lines.
PLACE = """
CREATE OR REPLACE FUNCTION gateway_place_calls(items jsonb, wait text) RETURNS SETOF gateway_placing
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET jit = off AS $$
#variable_conflict use_column
DECLARE
    call gateway_call;
    calls gateway_call[];
    joining uuid[];
    followers uuid[];
    leaders uuid[];
    recorded integer;
    repeated uuid[];
    unplaced uuid[];
    answer gateway_placing;
BEGIN
    IF wait IS NOT NULL THEN
        wait := set_config('lock_timeout', wait, true);
    END IF;
    IF jsonb_array_length(items) = 1 THEN
        call := jsonb_populate_record(NULL::gateway_call, items -> 0);
        IF call.joinable IS NULL AND call.idempotency_key IS NULL THEN
            RETURN NEXT gateway_place_call(call);
            RETURN;
        END IF;
    END IF;
    calls := ARRAY(SELECT i FROM jsonb_populate_recordset(NULL::gateway_call, items) i);
    IF jsonb_path_exists(items, '$[*].joinable ? (@ != null)') THEN
        SELECT j.* INTO joining, followers, leaders FROM gateway_join_calls(calls) j;
    END IF;
    IF jsonb_path_exists(items, '$[*].idempotency_key ? (@ != null)') THEN
        DELETE FROM idempotency_records WHERE hold_id IN (
            SELECT r.hold_id FROM idempotency_records r
            JOIN unnest(calls) i ON r.team_id = i.team AND r.idempotency_key = i.idempotency_key
            WHERE r.expires_at <= now()
            ORDER BY r.team_id, r.idempotency_key
            FOR UPDATE OF r SKIP LOCKED
        );
    END IF;

    IF jsonb_path_exists(items, '$[*].fingerprint') THEN
        INSERT INTO idempotency_records
            (hold_id, team_id, key_id, idempotency_key, operation, fingerprint, expires_at)
        SELECT i.id, i.team, i.key, i.idempotency_key, i.operation, decode(i.fingerprint, 'hex'),
               now() + make_interval(secs => i.lives)
        FROM unnest(calls) i
        WHERE i.fingerprint IS NOT NULL AND coalesce(i.id <> ALL (joining || followers), true)
        ORDER BY i.team, i.idempotency_key, i.id
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS recorded = ROW_COUNT;
    END IF;
    IF recorded < cardinality(calls) THEN  -- some have none, or made theirs before, or repeat a call
        repeated := ARRAY(
            SELECT i.id FROM unnest(calls) i
            WHERE i.fingerprint IS NOT NULL
              AND NOT EXISTS (SELECT FROM idempotency_records r WHERE r.hold_id = i.id)
        );
        calls := ARRAY(SELECT i FROM unnest(calls) i WHERE i.id <> ALL (repeated));
        RETURN QUERY
        SELECT r.id, 'repeated', NULL::bigint, NULL::boolean, NULL::boolean, NULL::text, NULL::bigint, NULL::bigint,
               NULL::bigint, NULL::timestamptz
        FROM unnest(repeated) AS r(id) WHERE coalesce(r.id <> ALL (followers), true);
        IF calls = '{}' THEN
            RETURN;
        END IF;
    END IF;

    FOREACH answer IN ARRAY gateway_hold_calls(calls) LOOP
        RETURN NEXT answer;
        IF answer.outcome <> 'placed' THEN
            unplaced := unplaced || answer.id;
        END IF;
        CONTINUE WHEN leaders IS NULL;
        IF answer.outcome = 'placed' THEN
            answer.outcome := 'repeated';
        END IF;
        FOREACH answer.id IN ARRAY ARRAY(
            SELECT f.id FROM unnest(followers, leaders) AS f(id, leader) WHERE f.leader = answer.id
        ) LOOP
            RETURN NEXT answer;
        END LOOP;
    END LOOP;
    IF unplaced IS NOT NULL THEN
        DELETE FROM idempotency_records r WHERE r.hold_id = ANY (unplaced);
    END IF;
END
$$;
"""


def upgrade() -> None:
    for script in (HOLD, PLACE_ONE, PLACE):
        _execute(script)


def downgrade() -> None:
    before = _revision("0019")
    for script in (before.HOLD, before.PLACE):
        _execute(script.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    _execute("DROP FUNCTION gateway_place_call(gateway_call)")


def _revision(name: str) -> ModuleType:
    script = context.script.get_revision(name)
    if script is None:
        raise LookupError(f"there is no revision {name}")
    return script.module


def _execute(script: str) -> None:
    op.get_bind().exec_driver_sql(script.replace("%", "%%"))  # the driver reads a lone % as a placeholder
