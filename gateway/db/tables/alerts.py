"""What people hear of: alerts, webhooks, and what was sent to them."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from gateway.db.tables.base import metadata, moment

alerts = Table(
    "alerts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column(
        "mark", Text, nullable=False
    ),  # which crossing of its kind and subject: a threshold, a period, a day
    Column("summary", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    moment("raised_at", now=True),
    moment("seen_at", now=True),  # when its reason was last there, for kinds that must be gone for a while
    moment("resolved_at"),
    CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity"),
    Index(
        "uq_alerts_open",
        "kind",
        "subject",
        "mark",
        unique=True,
        postgresql_where=text("resolved_at IS NULL"),
    ),
    Index("ix_alerts_open", "id", postgresql_where=text("resolved_at IS NULL")),
    Index(None, "resolved_at", postgresql_where=text("resolved_at IS NOT NULL")),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("url", Text, nullable=False),
    Column("format", Text, nullable=False, server_default="standard"),
    Column("secret", LargeBinary, nullable=False),  # encrypted, bound to this row's id
    Column("kinds", ARRAY(Text)),  # NULL: every kind
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("disabled_reason", Text),
    moment("created_at", now=True),
    CheckConstraint("format IN ('standard', 'slack')", name="format"),
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("webhook_id", Uuid, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("alert_id", Uuid, ForeignKey("alerts.id", ondelete="CASCADE")),  # NULL: a test
    Column("event", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    moment("next_try_at", now=True),
    moment("leased_until"),  # a process is sending it
    Column("last_status", SmallInteger),
    Column("last_error", Text),
    moment("last_tried_at"),
    moment("delivered_at"),
    moment("created_at", now=True),
    CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
    CheckConstraint("event IN ('alert.raised', 'alert.resolved', 'test')", name="event"),
    Index("uq_alert_deliveries_alert_id_webhook_id_event", "alert_id", "webhook_id", "event", unique=True),
    Index(None, "webhook_id", "id"),
    Index(None, "state", "id"),
    Index("ix_alert_deliveries_pending", "next_try_at", postgresql_where=text("state = 'pending'")),
)
