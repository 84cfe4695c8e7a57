"""A write into a month that is being pruned has an SQLSTATE of its own, so that it is not taken for a server in trouble."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

REFUSE = """
CREATE OR REPLACE FUNCTION gateway_refuse_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is being pruned: nothing in it changes any more', TG_TABLE_NAME USING ERRCODE = '{code}';
END
$$;
"""


def upgrade() -> None:
    _refuse_with("PX001")


def downgrade() -> None:
    _refuse_with("55000")  # object_not_in_prerequisite_state


def _refuse_with(code: str) -> None:
    op.get_bind().exec_driver_sql(REFUSE.format(code=code).replace("%", "%%"))
