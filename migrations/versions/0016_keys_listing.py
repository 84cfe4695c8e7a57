"""The keys of all teams as one list, newest first."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX ix_team_keys_created_at_id ON team_keys (created_at, id)")


def downgrade() -> None:
    op.execute("DROP INDEX ix_team_keys_created_at_id")
