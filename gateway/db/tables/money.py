"""Credits: quotas and their counters, holds and their ledger, and the usage that reports read."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.db.tables.base import metadata, moment

quotas = Table(
    "quotas",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("team_id", Uuid, ForeignKey("teams.id"), nullable=False),
    Column("key_id", Text, ForeignKey("team_keys.id")),  # the first of a line of keys; NULL: the whole team's
    Column("period", Text, nullable=False),
    Column("limit_micro", BigInteger, nullable=False),
    Column("enforce", Boolean, nullable=False, server_default=text("true")),
    moment("updated_at", now=True),
    moment("created_at", now=True),
    CheckConstraint("period IN ('day', 'week', 'month', 'total')", name="period"),
    CheckConstraint("limit_micro >= 0", name="limit_micro"),
    Index("uq_quotas_team", "team_id", "period", unique=True, postgresql_where=text("key_id IS NULL")),
    Index("uq_quotas_key", "key_id", "period", unique=True, postgresql_where=text("key_id IS NOT NULL")),
)

quota_periods = Table(
    "quota_periods",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("quota_id", Uuid, ForeignKey("quotas.id", ondelete="CASCADE"), nullable=False),
    Column("starts_at", DateTime(timezone=True), nullable=False),
    moment("ends_at"),  # NULL: a total
    Column("settled", BigInteger, nullable=False, server_default=text("0")),
    Column("held", BigInteger, nullable=False, server_default=text("0")),
    UniqueConstraint("quota_id", "starts_at"),
    Index(None, "ends_at"),
    # Counters are updated with every call: room on the page and no index over them keep the updates HOT.
    postgresql_with={
        "fillfactor": "50",
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_threshold": "1000",
    },
)

holds = Table(
    "holds",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("team_id", Uuid, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="held"),
    Column("quote", BigInteger, nullable=False),
    Column("settled", BigInteger),
    Column("estimated", Boolean, nullable=False, server_default=text("false")),
    Column("flags", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("reason", Text),
    Column(
        "counters", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")
    ),  # quota_periods it is on
    Column("task_id", Text),
    Column("upstream_key_id", Uuid),
    moment("placed_at", now=True),
    moment("unknown_at"),  # set by a trigger
    moment("ended_at"),
    CheckConstraint("state IN ('held', 'settled', 'released', 'unknown')", name="state"),
    CheckConstraint("quote >= 0", name="quote"),
    Index(None, "team_id", "id"),
    Index(None, "key_id", "id"),
    Index(None, "request_id"),
    Index("ix_holds_open", "state", "id", postgresql_where=text("state IN ('held', 'unknown')")),
    Index("ix_holds_released", "id", postgresql_where=text("state = 'released'")),
    Index(None, "model", "id"),
    postgresql_with={},
    postgresql_partition_by="RANGE (id)",
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("hold_id", Uuid, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("team_id", Uuid, nullable=False),
    Column("key_id", Text),
    Column("counters", ARRAY(BigInteger), nullable=False),
    Column("held", BigInteger, nullable=False),  # what this entry adds to the counters' held
    Column("settled", BigInteger, nullable=False),  # what it adds to their settled
    Column("actor", Text),
    Column("reason", Text),
    moment("made_at", now=True),
    CheckConstraint(
        "kind IN ('place', 'settle', 'release', 'overrun', 'adjust', 'resolve', 'carry')", name="kind"
    ),
    Index(None, "team_id", "hold_id"),
    postgresql_partition_by="RANGE (hold_id)",
)

attempts = Table(
    "attempts",
    metadata,
    Column("hold_id", Uuid, primary_key=True),
    Column("number", SmallInteger, primary_key=True),
    Column("upstream_key_id", Uuid, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("status", SmallInteger),
    Column("milliseconds", Integer, nullable=False),
    moment("started_at", now=True),
    postgresql_partition_by="RANGE (hold_id)",
)

usage_buckets = Table(
    "usage_buckets",
    metadata,
    Column("starts_at", DateTime(timezone=True), primary_key=True),  # a quarter of an hour
    Column("team_id", Uuid, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("operation", Text, primary_key=True),
    Column("day", Date, nullable=False),  # the team's own day
    Column("requests", Integer, nullable=False, server_default=text("0")),
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column("shadow_refused", Integer, nullable=False, server_default=text("0")),
    Column("credits", BigInteger, nullable=False, server_default=text("0")),
    Column("estimated_credits", BigInteger, nullable=False, server_default=text("0")),
    Index(None, "team_id", "starts_at"),
    postgresql_with={"fillfactor": "70"},
)

usage_days = Table(  # the sums of `usage_buckets` over UTC days that are over
    "usage_days",
    metadata,
    Column("utc_day", Date, primary_key=True),
    Column("team_id", Uuid, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("operation", Text, primary_key=True),
    Column("day", Date, primary_key=True),  # the team's own day
    Column("requests", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("shadow_refused", Integer, nullable=False),
    Column("credits", BigInteger, nullable=False),
    Column("estimated_credits", BigInteger, nullable=False),
)

usage_days_closed = Table(  # the days that are in `usage_days`
    "usage_days_closed",
    metadata,
    Column("utc_day", Date, primary_key=True),
    moment("closed_at", now=True),
)

usage_days_late = Table(  # written by triggers: days whose buckets changed after them, often several times
    "usage_days_late",
    metadata,
    Column("utc_day", Date, nullable=False),
)

upstream_key_days = Table(  # settled holds by the UTC day they were placed on
    "upstream_key_days",
    metadata,
    Column("utc_day", Date, primary_key=True),
    Column("upstream_key_id", Uuid, primary_key=True),
    Column("requests", Integer, nullable=False),
    Column("credits", BigInteger, nullable=False),
)

pruned_months = Table(  # append-only: months whose partitions were dropped, and what was in them
    "pruned_months",
    metadata,
    Column("month", Date, primary_key=True),  # its first day
    Column("holds", BigInteger, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("tasks", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("kept", BigInteger, nullable=False),  # holds placed after the month by the database's clock
    Column("manifest_sha256", Text),  # NULL: nothing was exported
    Column("actor", Text, nullable=False),
    moment("pruned_at", now=True),
)

carried_usage = Table(  # append-only: what the holds of pruned months have added to usage
    "carried_usage",
    metadata,
    Column("month", Date, primary_key=True),  # the pruned one
    Column("utc_day", Date, primary_key=True),
    Column("team_id", Uuid, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("operation", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("shadow_refused", BigInteger, nullable=False),
    Column("credits", BigInteger, nullable=False),
    Column("estimated_credits", BigInteger, nullable=False),
)
