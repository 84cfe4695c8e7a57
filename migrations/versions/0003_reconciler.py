"""What the reconciler needs: since when a hold is unknown, and a first read of a task two seconds after its submit."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A trigger rather than a column in gateway_end, so that every way of becoming unknown sets the clock.
UP = """
ALTER TABLE tasks ALTER COLUMN next_read_at SET DEFAULT now() + interval '2 seconds';

ALTER TABLE holds ADD COLUMN unknown_at timestamptz;
UPDATE holds SET unknown_at = now() WHERE state = 'unknown';

CREATE FUNCTION gateway_note_unknown() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.unknown_at := now();
    RETURN NEW;
END
$$;

CREATE TRIGGER note_unknown BEFORE UPDATE OF state ON holds
    FOR EACH ROW WHEN (NEW.state = 'unknown' AND OLD.state <> 'unknown') EXECUTE FUNCTION gateway_note_unknown();
"""

DOWN = """
DROP TRIGGER note_unknown ON holds;
DROP FUNCTION gateway_note_unknown();
ALTER TABLE holds DROP COLUMN unknown_at;
ALTER TABLE tasks ALTER COLUMN next_read_at SET DEFAULT now();
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP.replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
