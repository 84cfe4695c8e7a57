"""Every table, constraint and index, as SQLAlchemy Core objects.

Credits are BIGINT micro-credits (one millionth of a credit). Times are `timestamptz`. The objects here are what
queries are written with; what the database looks like is made by `migrations/`, and a test holds the two together.

Partitions and triggers live in the migrations only: `holds`, `ledger_entries` and `attempts` are RANGE-partitioned
by the hold's UUIDv7, so by month; `ledger_entries` and `audit_entries` refuse UPDATE, DELETE and TRUNCATE.
"""

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
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    }
)

NOW = func.now()


def _moment(name: str, *, now: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=not now, server_default=NOW if now else None)


# Who may call ----------------------------------------------------------------------------------------------

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
    _moment("suspended_at"),
    _moment("created_at", now=True),
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
    _moment("expires_at"),
    _moment("revoked_at"),
    _moment("last_used_at"),
    _moment("created_at", now=True),
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
    _moment("last_used_at"),
    _moment("revoked_at"),
    _moment("created_at", now=True),
    CheckConstraint("role IN ('admin', 'viewer')", name="role"),
)

admin_sessions = Table(
    "admin_sessions",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # SHA-256 of the cookie's value
    Column("token_id", Uuid, ForeignKey("admin_tokens.id")),
    Column("subject", Text, nullable=False),
    Column("role", Text, nullable=False),
    _moment("last_seen_at", now=True),
    _moment("ended_at"),
    _moment("created_at", now=True),
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
    _moment("created_at", now=True),
    _moment("last_seen_at", now=True),
    _moment("ended_at"),
    Index(None, "key_id"),
)

sign_in_attempts = Table(  # failed ones, by client
    "sign_in_attempts",
    metadata,
    Column("address", Text, primary_key=True),  # IPv6: its /64; or what else they fill
    Column("failures", Integer, nullable=False),
    _moment("began_at", now=True),
    postgresql_with={"fillfactor": "50"},
)

used_sign_in_states = Table(  # sign-ins with a provider work once
    "used_sign_in_states",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # SHA-256 of the state
    _moment("used_at", now=True),
)

# What Pixapi sees ------------------------------------------------------------------------------------------

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
    _moment("state_changed_at", now=True),
    _moment("paid_rests_until"),
    _moment("reads_rest_until"),
    Column("rest_reason", Text),
    Column("rest_count", Integer, nullable=False, server_default=text("0")),
    _moment("next_check_at"),  # when Pixapi's model list is asked whether the key works
    _moment("checking_until"),  # a process is asking it
    _moment("trial_until"),  # a paid call tries whether the account has credits again
    _moment("removed_at"),
    _moment("created_at", now=True),
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
    _moment("ended_at"),
    _moment("read_at"),  # last upstream read, failed ones too
    Column("seen_at", DateTime(timezone=True), server_default=NOW),  # when `body` was Pixapi's word
    _moment("reading_until"),  # a process is reading it now
    Column(
        "reads", BigInteger, nullable=False, server_default=text("0")
    ),  # numbers them: later ones are newer
    Column(
        "next_read_at",  # when the reconciler is due
        DateTime(timezone=True),
        nullable=False,
        server_default=text("now() + interval '2 seconds'"),
    ),
    _moment("leased_until"),  # a reconciler is reading it
    Column("failed_reads", Integer, nullable=False, server_default=text("0")),  # in a row
    _moment("created_at", now=True),
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

# Money -----------------------------------------------------------------------------------------------------

quotas = Table(
    "quotas",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("team_id", Uuid, ForeignKey("teams.id"), nullable=False),
    Column("key_id", Text, ForeignKey("team_keys.id")),  # the first of a line of keys; NULL: the whole team's
    Column("period", Text, nullable=False),
    Column("limit_micro", BigInteger, nullable=False),
    Column("enforce", Boolean, nullable=False, server_default=text("true")),
    _moment("updated_at", now=True),
    _moment("created_at", now=True),
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
    _moment("ends_at"),  # NULL: a total
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
    _moment("placed_at", now=True),
    _moment("unknown_at"),  # set by a trigger
    _moment("ended_at"),
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
    _moment("made_at", now=True),
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
    _moment("started_at", now=True),
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
    _moment("closed_at", now=True),
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
    _moment("ended_at"),
    _moment("delivered_at"),
    _moment("expires_at", now=True),
    _moment("created_at", now=True),
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

# What people hear of -----------------------------------------------------------------------------------------

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
    _moment("raised_at", now=True),
    _moment("seen_at", now=True),  # when its reason was last there, for kinds that must be gone for a while
    _moment("resolved_at"),
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
    _moment("created_at", now=True),
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
    _moment("next_try_at", now=True),
    _moment("leased_until"),  # a process is sending it
    Column("last_status", SmallInteger),
    Column("last_error", Text),
    _moment("last_tried_at"),
    _moment("delivered_at"),
    _moment("created_at", now=True),
    CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
    CheckConstraint("event IN ('alert.raised', 'alert.resolved', 'test')", name="event"),
    Index("uq_alert_deliveries_alert_id_webhook_id_event", "alert_id", "webhook_id", "event", unique=True),
    Index(None, "webhook_id", "id"),
    Index(None, "state", "id"),
    Index("ix_alert_deliveries_pending", "next_try_at", postgresql_where=text("state = 'pending'")),
)

# Who changed what ------------------------------------------------------------------------------------------

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
    _moment("made_at", now=True),
    Index(None, "subject_type", "subject_id", "id"),
    Index(None, "subject_type", "id"),
    Index(None, "actor", "id"),
    Index(None, "action", "id"),
    Index(None, "team_id", "id"),
)
