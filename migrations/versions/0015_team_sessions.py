"""Sessions of people who signed in to their team's own page with a team key."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

UP = """
CREATE TABLE team_sessions (
    digest BYTEA NOT NULL,
    id UUID NOT NULL,
    key_id TEXT NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    last_seen_at timestamptz DEFAULT now() NOT NULL,
    ended_at timestamptz,
    CONSTRAINT pk_team_sessions PRIMARY KEY (digest),
    CONSTRAINT fk_team_sessions_key_id_team_keys FOREIGN KEY (key_id) REFERENCES team_keys (id)
);
CREATE INDEX ix_team_sessions_key_id ON team_sessions (key_id);
"""

DOWN = "DROP TABLE team_sessions;"


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
