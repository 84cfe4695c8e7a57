"""Which pepper a key or token was signed with, so that an old one can be taken away when none needs it."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Without a default: neither table is rewritten. What is not known is filled in when the key is used.
    op.execute("ALTER TABLE team_keys ADD COLUMN pepper text")
    op.execute("ALTER TABLE admin_tokens ADD COLUMN pepper text")


def downgrade() -> None:
    op.execute("ALTER TABLE admin_tokens DROP COLUMN pepper")
    op.execute("ALTER TABLE team_keys DROP COLUMN pepper")
