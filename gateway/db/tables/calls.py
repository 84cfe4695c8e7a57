"""What is kept of calls for a while: answers for their repeats, and refusals."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from gateway.db.tables.base import metadata, moment

idempotency_records = Table(
    "idempotency_records",
    metadata,
    Column("hold_id", Uuid, primary_key=True),
    Column("team_id", Uuid, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("operation", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),  # SHA-256 of route and body
    Column("state", Text, nullable=False, server_default="running"),
    Column("status", SmallInteger),
    Column("headers", JSONB),
    Column("body", LargeBinary),
    Column("body_path", Text),  # larger answers lie in the spool folder
    Column("taken", Integer, nullable=False, server_default=text("0")),  # repeats that got this answer
    moment("ended_at"),
    moment("delivered_at"),
    moment("expires_at", now=True),
    moment("created_at", now=True),
    CheckConstraint("state IN ('running', 'ended', 'unknown')", name="state"),
    CheckConstraint("char_length(idempotency_key) <= 255", name="idempotency_key"),
    Index(
        "uq_idempotency_records_key",
        "team_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index(None, "key_id", "fingerprint", "created_at"),
    Index(None, "expires_at"),
)

refusals = Table(  # what was refused, for a day; the id is a UUIDv7 of `at`
    "refusals",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("team_id", Uuid),
    Column("key_id", Text),
    Column("route", Text, nullable=False),
    Column("operation", Text),
    Column("model", Text),
    Column("status", SmallInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text),
    Column("detail", JSONB, nullable=False),
    Column("hold_id", Uuid),
    Column("client", Text),
    Index(None, "request_id"),
)
