"""What was refused, kept for a day to be explained; and indexes that keep every list of the admin API quick.

The indexes are built in this transaction, and no call is placed or ended before it has committed: on a gateway with
millions of holds run the migration in a quiet minute.
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# A refusal's id says when it was, so the oldest are found by the primary key.
UP = """
CREATE TABLE refusals (
    id UUID NOT NULL,
    request_id TEXT NOT NULL,
    at timestamptz NOT NULL,
    team_id UUID,
    key_id TEXT,
    route TEXT NOT NULL,
    operation TEXT,
    model TEXT,
    status SMALLINT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT,
    detail JSONB NOT NULL,
    hold_id UUID,
    client TEXT,
    CONSTRAINT pk_refusals PRIMARY KEY (id)
);
CREATE INDEX ix_refusals_request_id ON refusals (request_id);

CREATE INDEX ix_holds_model_id ON holds (model, id);
CREATE INDEX ix_holds_released ON holds (id) WHERE state = 'released';
CREATE INDEX ix_tasks_status_created_at_id ON tasks (status, created_at, id);
CREATE INDEX ix_tasks_open ON tasks (created_at, id) WHERE ended_at IS NULL;
CREATE INDEX ix_audit_entries_subject_type_id ON audit_entries (subject_type, id);
CREATE INDEX ix_audit_entries_actor_id ON audit_entries (actor, id);
CREATE INDEX ix_audit_entries_action_id ON audit_entries (action, id);
"""

DOWN = """
DROP INDEX ix_audit_entries_action_id, ix_audit_entries_actor_id, ix_audit_entries_subject_type_id;
DROP INDEX ix_tasks_open, ix_tasks_status_created_at_id, ix_holds_released, ix_holds_model_id;
DROP TABLE refusals;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
