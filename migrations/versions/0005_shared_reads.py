"""Reads of tasks shared by all processes: who is reading a task now, which read is newer, and a key's reads a second."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# gateway_begin_read answers whether Pixapi may be asked for a task now:
#   go      yes; `number` is that of the read, later ones are newer
#   busy    another process is reading it
#   recent  it was read less than `every` ago
#   ended   it has ended (and is not to be read `again`)
#   full    the upstream key has had its reads of this window
# A key's reads are slots, each taken at most once per `span`: whatever the number of processes, no span sees more.
# An instant that lies ahead was written before the clock stepped back, and binds nobody.
UP = """
ALTER TABLE tasks ADD COLUMN reads bigint NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN reading_until timestamptz;
ALTER TABLE tasks ADD COLUMN seen_at timestamptz;  -- NULL for tasks before this, rather than a long lock
ALTER TABLE tasks ALTER COLUMN seen_at SET DEFAULT now();

CREATE TABLE upstream_read_slots (
    upstream_key_id uuid NOT NULL
        CONSTRAINT fk_upstream_read_slots_upstream_key_id_upstream_keys REFERENCES upstream_keys (id),
    slot integer NOT NULL,
    taken_at timestamptz NOT NULL,
    CONSTRAINT pk_upstream_read_slots PRIMARY KEY (upstream_key_id, slot)
) WITH (fillfactor = 50);

CREATE FUNCTION gateway_take_read_slot(key uuid, slots integer, span interval) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
    free integer;
BEGIN
    SELECT r.slot INTO free FROM upstream_read_slots r
    WHERE r.upstream_key_id = key AND r.slot < slots AND (r.taken_at <= at - span OR r.taken_at > at)
    ORDER BY r.taken_at LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE upstream_read_slots r SET taken_at = at WHERE r.upstream_key_id = key AND r.slot = free;
        RETURN true;
    END IF;
    FOR free IN SELECT generate_series(0, slots - 1) EXCEPT
                SELECT r.slot FROM upstream_read_slots r WHERE r.upstream_key_id = key ORDER BY 1 LOOP
        INSERT INTO upstream_read_slots (upstream_key_id, slot, taken_at) VALUES (key, free, at)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;

CREATE FUNCTION gateway_begin_read(task text, key uuid, again boolean, every interval, busy interval,
                                   slots integer, span interval, OUT verdict text, OUT number bigint)
LANGUAGE plpgsql AS $$
DECLARE
    known record;
    at timestamptz;
BEGIN
    SELECT t.ended_at, t.read_at, t.reading_until INTO known FROM tasks t WHERE t.id = task FOR NO KEY UPDATE;
    at := clock_timestamp();
    IF NOT FOUND OR (known.ended_at IS NOT NULL AND NOT again) THEN
        verdict := 'ended';
    ELSIF known.reading_until > at AND known.reading_until <= at + busy THEN
        verdict := 'busy';
    ELSIF known.read_at > at - every AND known.read_at <= at THEN
        verdict := 'recent';
    ELSIF NOT gateway_take_read_slot(key, slots, span) THEN
        verdict := 'full';
    ELSE
        verdict := 'go';
        UPDATE tasks t SET reads = t.reads + 1, reading_until = at + busy WHERE t.id = task
        RETURNING t.reads INTO number;
    END IF;
END
$$;
"""

DOWN = """
DROP FUNCTION gateway_begin_read(text, uuid, boolean, interval, interval, integer, interval);
DROP FUNCTION gateway_take_read_slot(uuid, integer, interval);
DROP TABLE upstream_read_slots;
ALTER TABLE tasks DROP COLUMN seen_at;
ALTER TABLE tasks DROP COLUMN reading_until;
ALTER TABLE tasks DROP COLUMN reads;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP.replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
