"""Calls are placed in fewer statements, whose plans are kept and touch the months of their own holds only."""

from __future__ import annotations

from types import ModuleType

from alembic import context, op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# A call as the process says it (`place_item` in credits/terms.py), with what was decided: the counters it is on, and
# whether a shadow quota would have refused it. And what it is answered. Items are read from JSON once, into these.
TYPES = """
CREATE TYPE gateway_call AS (
    id uuid, team uuid, key text, request text, operation text, model text, quote bigint, idempotency_key text,
    fingerprint text, lives double precision, joinable double precision, grace double precision, number integer,
    counters bigint[], shadow boolean
);
CREATE TYPE gateway_placing AS (
    id uuid, outcome text, remaining bigint, shadow boolean, on_key boolean, period text, limit_micro bigint,
    settled bigint, held bigint, resets_at timestamptz
);
"""

# The rule of 0009, for calls without an Idempotency-Key of which one is `joinable`: which of them join a call that is
# there, and which follow one of their own batch, and which one.
JOIN = """
CREATE FUNCTION gateway_join_calls(calls gateway_call[], OUT joining uuid[], OUT followers uuid[], OUT leaders uuid[])
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(l.number)
    FROM (
        SELECT DISTINCT hashtextextended(i.key || i.fingerprint, 20252) AS number
        FROM unnest(calls) i WHERE i.joinable IS NOT NULL ORDER BY number
    ) l;
    SELECT array_agg(j.id) FILTER (WHERE j.joins), array_agg(j.id) FILTER (WHERE j.follows),
           array_agg(j.first) FILTER (WHERE j.follows)
    INTO joining, followers, leaders
    FROM (
        SELECT c.*, c.is_new AND NOT c.joins AND c.id <> c.first AS follows
        FROM (
            SELECT b.*, first_value(b.id) OVER (PARTITION BY b.key, b.fingerprint, b.joins ORDER BY b.n) AS first
            FROM (
                SELECT a.*, a.is_new AND EXISTS (
                    SELECT FROM idempotency_records r JOIN holds h ON h.id = r.hold_id
                    WHERE r.key_id = a.key AND r.fingerprint = decode(a.fingerprint, 'hex')
                      AND r.idempotency_key IS NULL
                      AND (h.state <> 'released' OR h.task_id IS NOT NULL)
                      AND coalesce(r.ended_at, h.unknown_at, h.ended_at, now())
                          >= now() - make_interval(secs => a.joinable)
                      AND coalesce(r.delivered_at > now() - make_interval(secs => a.grace), true)
                      AND (a.number IS NULL OR r.taken < a.number
                           OR coalesce(r.ended_at, h.unknown_at, h.ended_at) IS NULL)
                ) AS joins
                FROM (
                    SELECT i.*, i.ordinality AS n, i.joinable IS NOT NULL AND NOT EXISTS (
                        SELECT FROM idempotency_records r WHERE r.hold_id = i.id
                    ) AS is_new
                    FROM unnest(calls) WITH ORDINALITY AS i
                    WHERE i.fingerprint IS NOT NULL AND i.idempotency_key IS NULL
                ) a
            ) b
        ) c
    ) j;
END
$$;
"""

# Decides the calls in their order, some dozens at most, on every quota that applies, and writes what was decided.
# What else changes a quota, or opens and closes its counters, holds its team's lock alone (credits/counters.py): under
# the shared one only what counters have settled and hold can change, and that is read as they are locked, by id.
# A call whose hold is there counts as placed and changes nothing, so that a batch can be sent again as it is. That is
# looked at under the counters' locks: the batch before may still be running.
# Of holds only those between the lowest and the highest id are looked at, so in their own month's partition.
# What calls it has the settings: plans are made once a connection, often while the tables are still empty, and must
# suit full ones.
HOLD = """
CREATE FUNCTION gateway_hold_calls(calls gateway_call[]) RETURNS gateway_placing[] LANGUAGE plpgsql AS $$
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
    WHERE c.id = a.counter AND a.added <> 0
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
           (now() AT TIME ZONE t.time_zone)::date, count(*), count(*) FILTER (WHERE i.shadow)
    FROM unnest(placed) i JOIN teams t ON t.id = i.team
    GROUP BY i.team, i.key, i.model, i.operation, t.time_zone
    ORDER BY i.team, i.key, i.model, i.operation
    ON CONFLICT (starts_at, team_id, key_id, model, operation)
    DO UPDATE SET requests = u.requests + excluded.requests,
                  shadow_refused = u.shadow_refused + excluded.shadow_refused;
    RETURN answers;
END
$$;
"""

# items as the process sends them, some dozens at most; `wait` is how long to wait for any lock, NULL as the session does.
# outcome: placed | refused (with the quota that refused) | no_counter (call gateway_open_counters, then again) |
# repeated: the call repeats one that is there, by its Idempotency-Key or by the rule of gateway_join_calls, and is not
# placed. Of calls that follow one of their batch all are repeated when that is placed, and otherwise answered what it is.
# Records are locked before anything gateway_hold_calls locks, those with keys in order; the locks for joining before
# those, since who waits for one of them must hold nothing else.
PLACE = """
CREATE FUNCTION gateway_place_calls(items jsonb, wait text) RETURNS SETOF gateway_placing
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET jit = off AS $$
#variable_conflict use_column
DECLARE
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

# What workers of the releases before call.
BEFORE = """
CREATE OR REPLACE FUNCTION {name}(items jsonb)
RETURNS TABLE (id uuid, outcome text, remaining bigint, shadow boolean, on_key boolean, period text,
               limit_micro bigint, settled bigint, held bigint, resets_at timestamptz)
LANGUAGE sql AS $$
    SELECT * FROM gateway_place_calls(items, NULL)
$$;
"""

DROP = """
DROP FUNCTION gateway_place_calls(jsonb, text);
DROP FUNCTION gateway_hold_calls(gateway_call[]);
DROP FUNCTION gateway_join_calls(gateway_call[]);
DROP TYPE gateway_placing;
DROP TYPE gateway_call;
"""


def upgrade() -> None:
    for script in (TYPES, JOIN, HOLD, PLACE):
        _execute(script)
    for name in ("gateway_place", "gateway_place_calls"):
        _execute(BEFORE.format(name=name))


def downgrade() -> None:
    joins: str = _revision("0009").UP
    _execute(_revision("0004").PLACE)
    _execute(joins[: joins.index("-- A repeat without a key")])
    _execute(DROP)


def _revision(name: str) -> ModuleType:
    script = context.script.get_revision(name)
    if script is None:
        raise LookupError(f"there is no revision {name}")
    return script.module


def _execute(script: str) -> None:
    op.get_bind().exec_driver_sql(script.replace("%", "%%"))  # the driver reads a lone % as a placeholder
