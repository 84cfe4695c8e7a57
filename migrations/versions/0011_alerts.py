"""Alerts, webhooks and their deliveries; a task knows its price."""

from __future__ import annotations

from types import ModuleType

from alembic import context, op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# The indexes on tasks hold odd costs and costs that are not the price alone, so they are nearly empty.
UP = """
CREATE TABLE alerts (
    id uuid CONSTRAINT pk_alerts PRIMARY KEY,
    kind text NOT NULL,
    severity text NOT NULL,
    subject text NOT NULL,
    mark text NOT NULL,
    summary text NOT NULL,
    detail jsonb NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    CONSTRAINT ck_alerts_severity CHECK (severity IN ('info', 'warning', 'critical'))
);
CREATE UNIQUE INDEX uq_alerts_open ON alerts (kind, subject, mark) WHERE resolved_at IS NULL;
CREATE INDEX ix_alerts_open ON alerts (id) WHERE resolved_at IS NULL;
CREATE INDEX ix_alerts_resolved_at ON alerts (resolved_at) WHERE resolved_at IS NOT NULL;

CREATE TABLE webhooks (
    id uuid CONSTRAINT pk_webhooks PRIMARY KEY,
    url text NOT NULL,
    format text NOT NULL DEFAULT 'standard',
    secret bytea NOT NULL,
    kinds text[],
    enabled boolean NOT NULL DEFAULT true,
    disabled_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ck_webhooks_format CHECK (format IN ('standard', 'slack'))
);

CREATE TABLE alert_deliveries (
    id uuid CONSTRAINT pk_alert_deliveries PRIMARY KEY,
    webhook_id uuid NOT NULL
        CONSTRAINT fk_alert_deliveries_webhook_id_webhooks REFERENCES webhooks (id) ON DELETE CASCADE,
    alert_id uuid CONSTRAINT fk_alert_deliveries_alert_id_alerts REFERENCES alerts (id) ON DELETE CASCADE,
    event text NOT NULL,
    body text NOT NULL,
    state text NOT NULL DEFAULT 'pending',
    tries integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL DEFAULT now(),
    leased_until timestamptz,
    last_status smallint,
    last_error text,
    last_tried_at timestamptz,
    delivered_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ck_alert_deliveries_state CHECK (state IN ('pending', 'delivered', 'failed')),
    CONSTRAINT ck_alert_deliveries_event CHECK (event IN ('alert.raised', 'alert.resolved', 'test'))
);
CREATE UNIQUE INDEX uq_alert_deliveries_alert_id_webhook_id_event
    ON alert_deliveries (alert_id, webhook_id, event);
CREATE INDEX ix_alert_deliveries_webhook_id_id ON alert_deliveries (webhook_id, id);
CREATE INDEX ix_alert_deliveries_state_id ON alert_deliveries (state, id);
CREATE INDEX ix_alert_deliveries_pending ON alert_deliveries (next_try_at) WHERE state = 'pending';

CREATE INDEX ix_quota_periods_ends_at ON quota_periods (ends_at);

ALTER TABLE tasks ADD COLUMN charge bigint, ADD COLUMN quote bigint;
CREATE INDEX ix_tasks_drift ON tasks (ended_at)
    WHERE status = 'completed' AND (credits_cost < charge OR credits_cost > quote);
CREATE INDEX ix_tasks_odd_cost ON tasks (ended_at) WHERE status = 'completed' AND credits_cost IS NULL;
"""

DOWN = """
DROP INDEX ix_tasks_odd_cost, ix_tasks_drift;
ALTER TABLE tasks DROP COLUMN charge, DROP COLUMN quote;
DROP INDEX ix_quota_periods_ends_at;
DROP TABLE alert_deliveries, webhooks, alerts;
"""

# gateway_bind of 0004 takes {charge, quote} too: what the price book says the call costs, and at most. Processes of the
# release before send neither.
BIND = (
    ("model, operation, status, body)\n", "model, operation, status, body, charge, quote)\n"),
    ("decode(i.body, 'base64')\n", "decode(i.body, 'base64'), i.charge, i.quote\n"),
    ("status text, body text))", "status text, body text, charge bigint, quote bigint))"),
    ("upstream_key, status, body, n)", "upstream_key, status, body, charge, quote, n)"),
)


def upgrade() -> None:
    _execute(UP)
    _execute(_bind(BIND))


def downgrade() -> None:
    _execute(_bind(()))
    _execute(DOWN)


def _bind(changes: tuple[tuple[str, str], ...]) -> str:
    script: str = _revision("0004").BIND.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    for before, after in changes:
        if script.count(before) != 1:
            raise LookupError(f"gateway_bind holds {before!r} other than once")
        script = script.replace(before, after)
    return script


def _revision(name: str) -> ModuleType:
    script = context.script.get_revision(name)
    if script is None:
        raise LookupError(f"there is no revision {name}")
    return script.module


def _execute(script: str) -> None:
    op.get_bind().exec_driver_sql(script.replace("%", "%%"))  # the driver reads a lone % as a placeholder
