"""Repeats of paid calls: a call's record is made with its hold, and goes when nothing was executed."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# items as those of gateway_place, and for calls that can be repeated: idempotency_key (or null), fingerprint (hex) and
# lives (seconds). An item whose Idempotency-Key is another call's is answered `repeated` and places nothing.
# Records are locked before anything gateway_place locks, those with keys in order.
UP = """
CREATE FUNCTION gateway_place_calls(items jsonb)
RETURNS TABLE (id uuid, outcome text, remaining bigint, shadow boolean, on_key boolean, period text,
               limit_micro bigint, settled bigint, held bigint, resets_at timestamptz)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wanted jsonb := items;
    repeated uuid[];
    unplaced uuid[] := '{}';
    placed record;
BEGIN
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
    WHERE i.fingerprint IS NOT NULL
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
    END LOOP;
    DELETE FROM idempotency_records r WHERE r.hold_id = ANY (unplaced);
END
$$;

-- A repeat without a key takes the oldest call it may join; `number` counts the repeats of one call, and a call is taken
-- once by each. One at a time for one body, so that two repeats cannot take the same call.
CREATE FUNCTION gateway_take_repeat(key text, wanted bytea, number integer, any_number boolean, joinable interval,
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
      AND coalesce(r.ended_at, h.unknown_at, h.ended_at, now()) > now() - joinable
      AND coalesce(r.delivered_at > now() - grace, true)
      AND (any_number OR r.taken < number)
    ORDER BY r.created_at, r.hold_id
    LIMIT 1;
    UPDATE idempotency_records r SET taken = greatest(r.taken, number) WHERE r.hold_id = found;
    RETURN found;
END
$$;

-- Nothing was executed: whoever repeats the call makes a new one. A task that failed was executed.
CREATE FUNCTION gateway_free_repeat() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM idempotency_records r WHERE r.hold_id = NEW.id AND r.state <> 'ended';
    RETURN NULL;
END
$$;

CREATE TRIGGER free_repeat AFTER UPDATE OF state ON holds
    FOR EACH ROW WHEN (NEW.state = 'released' AND OLD.state <> 'released' AND NEW.task_id IS NULL)
    EXECUTE FUNCTION gateway_free_repeat();
"""

DOWN = """
DROP TRIGGER free_repeat ON holds;
DROP FUNCTION gateway_free_repeat();
DROP FUNCTION gateway_take_repeat(text, bytea, integer, boolean, interval, interval);
DROP FUNCTION gateway_place_calls(jsonb);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP.replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
