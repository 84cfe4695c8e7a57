"""What Pixapi sees: the company's keys, their reads, and the tasks they have submitted."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)

from gateway.db.tables.base import NOW, metadata, moment

upstream_keys = Table(
    "upstream_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("label", Text, nullable=False),
    Column("account", Text, nullable=False),  # keys of one account can read each other's tasks
    Column("secret", LargeBinary, nullable=False),  # encrypted, bound to this row's id
    Column("fingerprint", LargeBinary, nullable=False),  # HMAC of the secret: finds doubles
    Column("last4", Text, nullable=False),
    Column("weight", Integer, nullable=False, server_default=text("1")),
    Column("max_in_flight", Integer),
    Column("state", Text, nullable=False, server_default="active"),
    Column("state_reason", Text),
    moment("state_changed_at", now=True),
    moment("paid_rests_until"),
    moment("reads_rest_until"),
    Column("rest_reason", Text),
    Column("rest_count", Integer, nullable=False, server_default=text("0")),
    moment("next_check_at"),  # when Pixapi's model list is asked whether the key works
    moment("checking_until"),  # a process is asking it
    moment("trial_until"),  # a paid call tries whether the account has credits again
    moment("removed_at"),
    moment("created_at", now=True),
    CheckConstraint("weight BETWEEN 1 AND 1000", name="weight"),
    CheckConstraint("max_in_flight > 0", name="max_in_flight"),
    CheckConstraint("state IN ('active', 'draining', 'disabled', 'refused')", name="state"),
    Index("uq_upstream_keys_label", "label", unique=True, postgresql_where=text("removed_at IS NULL")),
    Index(
        "uq_upstream_keys_fingerprint",
        "fingerprint",
        unique=True,
        postgresql_where=text("removed_at IS NULL"),
    ),
)

upstream_read_slots = Table(  # how many reads a second a key may make, over all processes
    "upstream_read_slots",
    metadata,
    Column("upstream_key_id", Uuid, ForeignKey("upstream_keys.id"), primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("taken_at", DateTime(timezone=True), nullable=False),
    postgresql_with={"fillfactor": "50"},
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Text, primary_key=True),  # Pixapi's own task id
    Column("team_id", Uuid, ForeignKey("teams.id"), nullable=False),
    Column("key_id", Text, ForeignKey("team_keys.id"), nullable=False),
    Column("hold_id", Uuid, nullable=False),
    Column("upstream_key_id", Uuid, ForeignKey("upstream_keys.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),  # last known state, as Pixapi's task JSON
    Column("credits_cost", BigInteger),
    Column(
        "charge", BigInteger
    ),  # what the price book says it costs, and `quote` at most; NULL without a price
    Column("quote", BigInteger),
    moment("ended_at"),
    moment("read_at"),  # last upstream read, failed ones too
    Column("seen_at", DateTime(timezone=True), server_default=NOW),  # when `body` was Pixapi's word
    moment("reading_until"),  # a process is reading it now
    Column(
        "reads", BigInteger, nullable=False, server_default=text("0")
    ),  # numbers them: later ones are newer
    Column(
        "next_read_at",  # when the reconciler is due
        DateTime(timezone=True),
        nullable=False,
        server_default=text("now() + interval '2 seconds'"),
    ),
    moment("leased_until"),  # a reconciler is reading it
    Column("failed_reads", Integer, nullable=False, server_default=text("0")),  # in a row
    moment("created_at", now=True),
    Index(None, "team_id", "created_at", "id"),
    Index(None, "created_at", "id"),
    Index(None, "status", "created_at", "id"),
    Index("ix_tasks_open", "created_at", "id", postgresql_where=text("ended_at IS NULL")),
    Index("ix_tasks_unfinished", "next_read_at", postgresql_where=text("ended_at IS NULL")),
    Index(
        "ix_tasks_drift",
        "ended_at",
        postgresql_where=text("status = 'completed' AND (credits_cost < charge OR credits_cost > quote)"),
    ),
    Index(
        "ix_tasks_odd_cost",
        "ended_at",
        postgresql_where=text("status = 'completed' AND credits_cost IS NULL"),
    ),
    postgresql_with={"fillfactor": "80"},
)
