"""Who may call: teams and their keys, admin tokens, and the sessions of people who signed in."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.db.tables.base import metadata, moment

teams = Table(
    "teams",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("time_zone", Text, nullable=False, server_default="UTC"),
    Column("cost_center", Text),
    Column("allowed_models", ARRAY(Text)),  # NULL: every priced model
    Column("requests_per_minute", Integer),
    Column("max_in_flight", Integer),
    Column("unlimited", Boolean, nullable=False, server_default=text("false")),
    moment("suspended_at"),
    moment("created_at", now=True),
    CheckConstraint("requests_per_minute > 0", name="requests_per_minute"),
    CheckConstraint("max_in_flight > 0", name="max_in_flight"),
)

team_keys = Table(
    "team_keys",
    metadata,
    Column("id", Text, primary_key=True),  # the public id inside the key
    Column("team_id", Uuid, ForeignKey("teams.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),  # HMAC-SHA256 of the whole key
    Column("pepper", Text),  # the name of the pepper in it; NULL: not known
    Column("last4", Text, nullable=False),
    Column("allowed_models", ARRAY(Text)),
    Column("allowed_addresses", ARRAY(Text)),
    Column("requests_per_minute", Integer),
    Column("max_in_flight", Integer),
    Column("replaced_by", Text, ForeignKey("team_keys.id")),
    # Whose quotas it counts on: the first key of its line of rotations. A trigger fills in a new line's own id.
    Column("quota_key_id", Text, ForeignKey("team_keys.id"), nullable=False),
    moment("expires_at"),
    moment("revoked_at"),
    moment("last_used_at"),
    moment("created_at", now=True),
    CheckConstraint("requests_per_minute > 0", name="requests_per_minute"),
    CheckConstraint("max_in_flight > 0", name="max_in_flight"),
    Index(None, "team_id", "created_at", "id"),
    Index(None, "created_at", "id"),
    Index(None, "quota_key_id"),
)

admin_tokens = Table(
    "admin_tokens",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("pepper", Text),
    Column("last4", Text, nullable=False),
    moment("last_used_at"),
    moment("revoked_at"),
    moment("created_at", now=True),
    CheckConstraint("role IN ('admin', 'viewer')", name="role"),
)

admin_sessions = Table(
    "admin_sessions",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # SHA-256 of the cookie's value
    Column("token_id", Uuid, ForeignKey("admin_tokens.id")),
    Column("subject", Text, nullable=False),
    Column("role", Text, nullable=False),
    moment("last_seen_at", now=True),
    moment("ended_at"),
    moment("created_at", now=True),
    Column("id", Uuid, nullable=False),  # what the audit calls it
    Column("name", Text, nullable=False),  # whom the pages greet
    Column("bootstrap_digest", LargeBinary),  # HMAC of the bootstrap token that opened it
    Column("issuer", Text),  # the OIDC provider that vouched for it
    CheckConstraint("role IN ('admin', 'viewer')", name="role"),
    CheckConstraint("num_nonnulls(token_id, bootstrap_digest, issuer) = 1", name="origin"),
    Index(None, "token_id"),
)

team_sessions = Table(  # of people who signed in with a team key
    "team_sessions",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # SHA-256 of the cookie's value
    Column("id", Uuid, nullable=False),
    Column("key_id", Text, ForeignKey("team_keys.id"), nullable=False),
    moment("created_at", now=True),
    moment("last_seen_at", now=True),
    moment("ended_at"),
    Index(None, "key_id"),
)

sign_in_attempts = Table(  # failed ones, by client
    "sign_in_attempts",
    metadata,
    Column("address", Text, primary_key=True),  # IPv6: its /64; or what else they fill
    Column("failures", Integer, nullable=False),
    moment("began_at", now=True),
    postgresql_with={"fillfactor": "50"},
)

used_sign_in_states = Table(  # sign-ins with a provider work once
    "used_sign_in_states",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # SHA-256 of the state
    moment("used_at", now=True),
)
