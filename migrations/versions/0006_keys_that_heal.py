"""Upstream keys that come back by themselves: when each is checked, and who is trying it."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Keys that rest after a refusal come back by a check from now on; those that were resting are checked at once.
UP = """
ALTER TABLE upstream_keys
    ADD COLUMN next_check_at timestamptz,
    ADD COLUMN checking_until timestamptz,
    ADD COLUMN trial_until timestamptz;
UPDATE upstream_keys SET next_check_at = now()
WHERE state = 'refused' OR (rest_reason = 'refused' AND reads_rest_until > now());
"""

DOWN = """
ALTER TABLE upstream_keys
    DROP COLUMN next_check_at,
    DROP COLUMN checking_until,
    DROP COLUMN trial_until;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
