"""Usage summed by UTC days, for days that are over; a settlement that comes late marks its day."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# What is marked has changed after its day. The marks have no index and no key: nobody who writes one waits for anybody.
# The condition is looked at for each row that changes, so today's rows cost a comparison and no call.
UP = """
CREATE TABLE usage_days (
    utc_day date NOT NULL,
    team_id uuid NOT NULL,
    model text NOT NULL,
    operation text NOT NULL,
    day date NOT NULL,
    requests integer NOT NULL,
    failed integer NOT NULL,
    shadow_refused integer NOT NULL,
    credits bigint NOT NULL,
    estimated_credits bigint NOT NULL,
    CONSTRAINT pk_usage_days PRIMARY KEY (utc_day, team_id, model, operation, day)
);

CREATE TABLE usage_days_closed (
    utc_day date CONSTRAINT pk_usage_days_closed PRIMARY KEY,
    closed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE usage_days_late (
    utc_day date NOT NULL
);

CREATE TABLE upstream_key_days (
    utc_day date NOT NULL,
    upstream_key_id uuid NOT NULL,
    requests integer NOT NULL,
    credits bigint NOT NULL,
    CONSTRAINT pk_upstream_key_days PRIMARY KEY (utc_day, upstream_key_id)
);

CREATE FUNCTION gateway_mark_late_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO usage_days_late (utc_day) VALUES ((NEW.starts_at AT TIME ZONE 'UTC')::date);
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.starts_at <> NEW.starts_at) THEN
        INSERT INTO usage_days_late (utc_day) VALUES ((OLD.starts_at AT TIME ZONE 'UTC')::date);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER late_usage_made AFTER INSERT ON usage_buckets FOR EACH ROW
    WHEN (NEW.starts_at < date_bin('1 day', clock_timestamp(), '2000-01-01T00:00:00Z'))
    EXECUTE FUNCTION gateway_mark_late_usage();
CREATE TRIGGER late_usage_changed AFTER UPDATE ON usage_buckets FOR EACH ROW
    WHEN (least(OLD.starts_at, NEW.starts_at) < date_bin('1 day', clock_timestamp(), '2000-01-01T00:00:00Z'))
    EXECUTE FUNCTION gateway_mark_late_usage();
CREATE TRIGGER late_usage_removed AFTER DELETE ON usage_buckets FOR EACH ROW
    WHEN (OLD.starts_at < date_bin('1 day', clock_timestamp(), '2000-01-01T00:00:00Z'))
    EXECUTE FUNCTION gateway_mark_late_usage();
"""

DOWN = """
DROP TRIGGER late_usage_made ON usage_buckets;
DROP TRIGGER late_usage_changed ON usage_buckets;
DROP TRIGGER late_usage_removed ON usage_buckets;
DROP FUNCTION gateway_mark_late_usage();
DROP TABLE upstream_key_days, usage_days_late, usage_days_closed, usage_days;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
