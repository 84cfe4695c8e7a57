"""A slot for a read that another process took a moment later is taken."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Two processes may look at the clock in one order and reach the slots in the other. So an instant that lies ahead by
# less than a span is another's; one that lies further ahead was written before the clock stepped back.
TAKE = """
CREATE OR REPLACE FUNCTION gateway_take_read_slot(key uuid, slots integer, span interval)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
    free integer;
BEGIN
    SELECT r.slot INTO free FROM upstream_read_slots r
    WHERE r.upstream_key_id = key AND r.slot < slots AND (r.taken_at <= at - span OR r.taken_at > {ahead})
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
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TAKE.format(ahead="at + span"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(TAKE.format(ahead="at"))
