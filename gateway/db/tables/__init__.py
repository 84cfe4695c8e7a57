"""Every table, constraint and index, as SQLAlchemy Core objects.

Credits are BIGINT micro-credits (one millionth of a credit). Times are `timestamptz`. The objects here are what
queries are written with; what the database looks like is made by `migrations/`, and a test holds the two together.

Partitions and triggers live in the migrations only: `holds`, `ledger_entries` and `attempts` are RANGE-partitioned
by the hold's UUIDv7, so by month; `ledger_entries`, `audit_entries`, `pruned_months` and `carried_usage` refuse
UPDATE, DELETE and TRUNCATE.
"""

from __future__ import annotations

from gateway.db.tables.access import (
    admin_sessions,
    admin_tokens,
    sign_in_attempts,
    team_keys,
    team_sessions,
    teams,
    used_sign_in_states,
)
from gateway.db.tables.alerts import alert_deliveries, alerts, webhooks
from gateway.db.tables.audit import audit_entries
from gateway.db.tables.base import NOW, metadata
from gateway.db.tables.calls import idempotency_records, refusals
from gateway.db.tables.money import (
    attempts,
    carried_usage,
    holds,
    ledger_entries,
    pruned_months,
    quota_periods,
    quotas,
    upstream_key_days,
    usage_buckets,
    usage_days,
    usage_days_closed,
    usage_days_late,
)
from gateway.db.tables.upstream import tasks, upstream_keys, upstream_read_slots

__all__ = [
    "NOW",
    "admin_sessions",
    "admin_tokens",
    "alert_deliveries",
    "alerts",
    "attempts",
    "audit_entries",
    "carried_usage",
    "holds",
    "idempotency_records",
    "ledger_entries",
    "metadata",
    "pruned_months",
    "quota_periods",
    "quotas",
    "refusals",
    "sign_in_attempts",
    "tasks",
    "team_keys",
    "team_sessions",
    "teams",
    "upstream_key_days",
    "upstream_keys",
    "upstream_read_slots",
    "usage_buckets",
    "usage_days",
    "usage_days_closed",
    "usage_days_late",
    "used_sign_in_states",
    "webhooks",
]
