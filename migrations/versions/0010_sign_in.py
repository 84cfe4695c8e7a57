"""Dashboard sessions and sign-in attempts."""

from __future__ import annotations

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
