"""Who changed what."""

from __future__ import annotations

from sqlalchemy import Column, Index, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from gateway.db.tables.base import metadata, moment

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject_type", Text, nullable=False),
    Column("subject_id", Text, nullable=False),
    Column("team_id", Uuid),
    Column("detail", JSONB, nullable=False),
    moment("made_at", now=True),
    Index(None, "subject_type", "subject_id", "id"),
    Index(None, "subject_type", "id"),
    Index(None, "actor", "id"),
    Index(None, "action", "id"),
    Index(None, "team_id", "id"),
)
