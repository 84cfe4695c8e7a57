"""Identical calls that are placed at the same instant: the first is, the others join it."""

from __future__ import annotations

from alembic import context, op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# gateway_place_calls as in 0007, but: an item with `joinable` and `grace` (seconds) and no Idempotency-Key is answered `repeated`, and places nothing, when
# there is a call it may join by the rule of gateway_take_repeat. `number` is which repeat of an SDK it is; without one it
# may join whatever number has. Of identical items in one batch that find none the first is tried and the others follow
# it: they are `repeated` when it is placed, and otherwise answered what it is, since there is nothing to join.
# The lock is that function's, so that of two processes the second sees what the first has placed. It cannot be part of
# a circle: who waits for one holds nothing but locks of this kind with lower numbers, since they are taken before
# everything else here and alone there. An item whose record is there was placed: a batch can be sent again as it is.
UP = """
CREATE OR REPLACE FUNCTION gateway_place_calls(items jsonb)
RETURNS TABLE (id uuid, outcome text, remaining bigint, shadow boolean, on_key boolean, period text,
               limit_micro bigint, settled bigint, held bigint, resets_at timestamptz)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wanted jsonb := items;
    repeated uuid[];
    joining uuid[] := '{}';
    followers uuid[] := '{}';
    leaders uuid[] := '{}';
    unplaced uuid[] := '{}';
    placed record;
BEGIN
    IF jsonb_path_exists(items, '$[*].joinable') THEN
        PERFORM pg_advisory_xact_lock(l.number)
        FROM (
            SELECT DISTINCT hashtextextended(i.key || i.fingerprint, 20252) AS number
            FROM jsonb_to_recordset(items) AS i(key text, fingerprint text, joinable double precision)
            WHERE i.joinable IS NOT NULL
            ORDER BY number
        ) l;
        SELECT coalesce(array_agg(j.id) FILTER (WHERE j.joins), '{}'),
               coalesce(array_agg(j.id) FILTER (WHERE j.follows), '{}'),
               coalesce(array_agg(j.first) FILTER (WHERE j.follows), '{}')
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
                        SELECT i.*, i.joinable IS NOT NULL AND NOT EXISTS (
                            SELECT FROM idempotency_records r WHERE r.hold_id = i.id
                        ) AS is_new
                        FROM ROWS FROM (jsonb_to_recordset(items)
                                        AS (id uuid, key text, idempotency_key text, fingerprint text,
                                            joinable double precision, grace double precision, number integer))
                             WITH ORDINALITY AS i(id, key, idempotency_key, fingerprint, joinable, grace, number, n)
                        WHERE i.fingerprint IS NOT NULL AND i.idempotency_key IS NULL
                    ) a
                ) b
            ) c
        ) j;
    END IF;

    DELETE FROM idempotency_records WHERE hold_id IN (
        SELECT r.hold_id FROM idempotency_records r
        JOIN jsonb_to_recordset(items) AS i(team uuid, idempotency_key text)
          ON r.team_id = i.team AND r.idempotency_key = i.idempotency_key
        WHERE r.expires_at <= now()
        ORDER BY r.team_id, r.idempotency_key
        FOR UPDATE OF r SKIP LOCKED
    );

    INSERT INTO idempotency_records (hold_id, team_id, key_id, idempotency_key, operation, fingerprint, expires_at)
    SELECT i.id, i.team, i.key, i.idempotency_key, i.operation, decode(i.fingerprint, 'hex'),
           now() + make_interval(secs => i.lives)
    FROM jsonb_to_recordset(items) AS i(id uuid, team uuid, key text, operation text, idempotency_key text,
                                        fingerprint text, lives double precision)
    WHERE i.fingerprint IS NOT NULL AND i.id <> ALL (joining || followers)
    ORDER BY i.team, i.idempotency_key, i.id
    ON CONFLICT DO NOTHING;

    SELECT array_agg(i.id) INTO repeated
    FROM jsonb_to_recordset(items) AS i(id uuid, fingerprint text)
    WHERE i.fingerprint IS NOT NULL AND NOT EXISTS (SELECT FROM idempotency_records r WHERE r.hold_id = i.id);
    IF repeated IS NOT NULL THEN
        SELECT jsonb_agg(i.item) INTO wanted
        FROM jsonb_array_elements(items) AS i(item) WHERE (i.item ->> 'id')::uuid <> ALL (repeated);
        FOREACH id IN ARRAY repeated LOOP
            outcome := 'repeated';
            CONTINUE WHEN id = ANY (followers);
            RETURN NEXT;
        END LOOP;
    END IF;
    IF wanted IS NULL THEN
        RETURN;
    END IF;

    FOR placed IN SELECT * FROM gateway_place(wanted) LOOP
        id := placed.id;
        outcome := placed.outcome;
        remaining := placed.remaining;
        shadow := placed.shadow;
        on_key := placed.on_key;
        period := placed.period;
        limit_micro := placed.limit_micro;
        settled := placed.settled;
        held := placed.held;
        resets_at := placed.resets_at;
        IF outcome <> 'placed' THEN
            unplaced := unplaced || id;
        END IF;
        RETURN NEXT;
        IF placed.id = ANY (leaders) THEN
            IF outcome = 'placed' THEN
                outcome := 'repeated';
            END IF;
            FOR slot IN 1 .. cardinality(followers) LOOP
                IF leaders[slot] = placed.id THEN
                    id := followers[slot];
                    RETURN NEXT;
                END IF;
            END LOOP;
        END IF;
    END LOOP;
    DELETE FROM idempotency_records r WHERE r.hold_id = ANY (unplaced);
END
$$;

-- A repeat without a key takes the oldest call it may join; `number` counts the repeats of one call, and a call is taken
-- once by each, but for one that runs: that can always be joined. One at a time for one body, so that two repeats cannot
-- take the same call while there is another.
CREATE OR REPLACE FUNCTION gateway_take_repeat(key text, wanted bytea, number integer, any_number boolean, joinable interval,
                                    grace interval)
RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    found uuid;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(key || encode(wanted, 'hex'), 20252));
    SELECT r.hold_id INTO found
    FROM idempotency_records r JOIN holds h ON h.id = r.hold_id
    WHERE r.key_id = key AND r.fingerprint = wanted AND r.idempotency_key IS NULL
      AND (h.state <> 'released' OR h.task_id IS NOT NULL)
      AND coalesce(r.ended_at, h.unknown_at, h.ended_at, now()) >= now() - joinable
      AND coalesce(r.delivered_at > now() - grace, true)
      AND (any_number OR r.taken < number OR coalesce(r.ended_at, h.unknown_at, h.ended_at) IS NULL)
    ORDER BY (r.taken >= number AND NOT any_number), r.created_at, r.hold_id
    LIMIT 1;
    UPDATE idempotency_records r SET taken = greatest(r.taken, number) WHERE r.hold_id = found;
    RETURN found;
END
$$;
"""


def upgrade() -> None:
    _execute(UP)


def downgrade() -> None:
    before = context.script.get_revision("0007")
    if before is None:
        raise LookupError("revision 0007 is missing")
    made: str = before.module.UP
    _execute(
        made[: made.index("-- Nothing was executed")].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    )


def _execute(script: str) -> None:
    op.get_bind().exec_driver_sql(script.replace("%", "%%"))  # the driver reads a lone % as a placeholder
