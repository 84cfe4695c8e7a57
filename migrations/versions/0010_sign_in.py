"""Dashboard sessions: what they stand on; failed sign-ins by address; sign-ins with a provider that were used."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Nothing has made a session before this release, so none is lost.
UP = """
DELETE FROM admin_sessions;
ALTER TABLE admin_sessions
    ADD COLUMN id UUID NOT NULL,
    ADD COLUMN name TEXT NOT NULL,
    ADD COLUMN bootstrap_digest BYTEA,
    ADD COLUMN issuer TEXT,
    ADD CONSTRAINT ck_admin_sessions_origin CHECK (num_nonnulls(token_id, bootstrap_digest, issuer) = 1);
CREATE INDEX ix_admin_sessions_token_id ON admin_sessions (token_id);

CREATE TABLE sign_in_attempts (
    address TEXT NOT NULL,
    failures INTEGER NOT NULL,
    began_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_sign_in_attempts PRIMARY KEY (address)
) WITH (fillfactor = 50);

CREATE TABLE used_sign_in_states (
    digest BYTEA NOT NULL,
    used_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_used_sign_in_states PRIMARY KEY (digest)
);
"""

DOWN = """
DROP TABLE used_sign_in_states;
DROP TABLE sign_in_attempts;
DELETE FROM admin_sessions;
DROP INDEX ix_admin_sessions_token_id;
ALTER TABLE admin_sessions
    DROP CONSTRAINT ck_admin_sessions_origin,
    DROP COLUMN issuer,
    DROP COLUMN bootstrap_digest,
    DROP COLUMN name,
    DROP COLUMN id;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
