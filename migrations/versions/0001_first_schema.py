"""The first schema: access, pool, tasks, holds and ledger, usage, idempotency, audit.

Holds, ledger entries and attempts are partitioned by the month inside the hold's UUIDv7, each with a default partition
that catches what no month covers. Ledger and audit are append-only for every login, the application's own included.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE admin_tokens (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    digest BYTEA NOT NULL,
    last4 TEXT NOT NULL,
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_admin_tokens PRIMARY KEY (id),
    CONSTRAINT ck_admin_tokens_role CHECK (role IN ('admin', 'viewer')),
    CONSTRAINT uq_admin_tokens_digest UNIQUE (digest)
);

CREATE TABLE attempts (
    hold_id UUID NOT NULL,
    number SMALLINT NOT NULL,
    upstream_key_id UUID NOT NULL,
    outcome TEXT NOT NULL,
    status SMALLINT,
    milliseconds INTEGER NOT NULL,
    started_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_attempts PRIMARY KEY (hold_id, number)
) PARTITION BY RANGE (hold_id);

CREATE TABLE audit_entries (
    id UUID NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject_type TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    team_id UUID,
    detail JSONB NOT NULL,
    made_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_audit_entries PRIMARY KEY (id)
);
CREATE INDEX ix_audit_entries_subject_type_subject_id_id ON audit_entries (subject_type, subject_id, id);
CREATE INDEX ix_audit_entries_team_id_id ON audit_entries (team_id, id);

CREATE TABLE holds (
    id UUID NOT NULL,
    team_id UUID NOT NULL,
    key_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    operation TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT DEFAULT 'held' NOT NULL,
    quote BIGINT NOT NULL,
    settled BIGINT,
    estimated BOOLEAN DEFAULT false NOT NULL,
    flags TEXT[] DEFAULT '{}' NOT NULL,
    reason TEXT,
    counters BIGINT[] DEFAULT '{}' NOT NULL,
    task_id TEXT,
    upstream_key_id UUID,
    placed_at timestamptz DEFAULT now() NOT NULL,
    ended_at timestamptz,
    CONSTRAINT pk_holds PRIMARY KEY (id),
    CONSTRAINT ck_holds_state CHECK (state IN ('held', 'settled', 'released', 'unknown')),
    CONSTRAINT ck_holds_quote CHECK (quote >= 0)
) PARTITION BY RANGE (id);
CREATE INDEX ix_holds_key_id_id ON holds (key_id, id);
CREATE INDEX ix_holds_open ON holds (state, id) WHERE state IN ('held', 'unknown');
CREATE INDEX ix_holds_request_id ON holds (request_id);
CREATE INDEX ix_holds_team_id_id ON holds (team_id, id);

CREATE TABLE idempotency_records (
    hold_id UUID NOT NULL,
    team_id UUID NOT NULL,
    key_id TEXT NOT NULL,
    idempotency_key TEXT,
    operation TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    state TEXT DEFAULT 'running' NOT NULL,
    status SMALLINT,
    headers JSONB,
    body BYTEA,
    body_path TEXT,
    taken INTEGER DEFAULT 0 NOT NULL,
    ended_at timestamptz,
    delivered_at timestamptz,
    expires_at timestamptz DEFAULT now() NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_idempotency_records PRIMARY KEY (hold_id),
    CONSTRAINT ck_idempotency_records_state CHECK (state IN ('running', 'ended', 'unknown')),
    CONSTRAINT ck_idempotency_records_idempotency_key CHECK (char_length(idempotency_key) <= 255)
);
CREATE INDEX ix_idempotency_records_expires_at ON idempotency_records (expires_at);
CREATE INDEX ix_idempotency_records_key_id_fingerprint_created_at
    ON idempotency_records (key_id, fingerprint, created_at);
CREATE UNIQUE INDEX uq_idempotency_records_key
    ON idempotency_records (team_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

CREATE TABLE ledger_entries (
    hold_id UUID NOT NULL,
    kind TEXT NOT NULL,
    team_id UUID NOT NULL,
    key_id TEXT,
    counters BIGINT[] NOT NULL,
    held BIGINT NOT NULL,
    settled BIGINT NOT NULL,
    actor TEXT,
    reason TEXT,
    made_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_ledger_entries PRIMARY KEY (hold_id, kind),
    CONSTRAINT ck_ledger_entries_kind CHECK (kind IN ('place', 'settle', 'release', 'overrun', 'adjust', 'resolve', 'carry'))
) PARTITION BY RANGE (hold_id);
CREATE INDEX ix_ledger_entries_team_id_hold_id ON ledger_entries (team_id, hold_id);

CREATE TABLE teams (
    id UUID NOT NULL,
    slug TEXT NOT NULL,
    name TEXT NOT NULL,
    time_zone TEXT DEFAULT 'UTC' NOT NULL,
    cost_center TEXT,
    allowed_models TEXT[],
    requests_per_minute INTEGER,
    max_in_flight INTEGER,
    unlimited BOOLEAN DEFAULT false NOT NULL,
    suspended_at timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_teams PRIMARY KEY (id),
    CONSTRAINT ck_teams_requests_per_minute CHECK (requests_per_minute > 0),
    CONSTRAINT ck_teams_max_in_flight CHECK (max_in_flight > 0),
    CONSTRAINT uq_teams_slug UNIQUE (slug)
);

CREATE TABLE upstream_keys (
    id UUID NOT NULL,
    label TEXT NOT NULL,
    account TEXT NOT NULL,
    secret BYTEA NOT NULL,
    fingerprint BYTEA NOT NULL,
    last4 TEXT NOT NULL,
    weight INTEGER DEFAULT 1 NOT NULL,
    max_in_flight INTEGER,
    state TEXT DEFAULT 'active' NOT NULL,
    state_reason TEXT,
    state_changed_at timestamptz DEFAULT now() NOT NULL,
    paid_rests_until timestamptz,
    reads_rest_until timestamptz,
    rest_reason TEXT,
    rest_count INTEGER DEFAULT 0 NOT NULL,
    removed_at timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_upstream_keys PRIMARY KEY (id),
    CONSTRAINT ck_upstream_keys_weight CHECK (weight BETWEEN 1 AND 1000),
    CONSTRAINT ck_upstream_keys_max_in_flight CHECK (max_in_flight > 0),
    CONSTRAINT ck_upstream_keys_state CHECK (state IN ('active', 'draining', 'disabled', 'refused'))
);
CREATE UNIQUE INDEX uq_upstream_keys_fingerprint ON upstream_keys (fingerprint) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX uq_upstream_keys_label ON upstream_keys (label) WHERE removed_at IS NULL;

CREATE TABLE usage_buckets (
    starts_at timestamptz NOT NULL,
    team_id UUID NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    operation TEXT NOT NULL,
    day DATE NOT NULL,
    requests INTEGER DEFAULT 0 NOT NULL,
    failed INTEGER DEFAULT 0 NOT NULL,
    shadow_refused INTEGER DEFAULT 0 NOT NULL,
    credits BIGINT DEFAULT 0 NOT NULL,
    estimated_credits BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT pk_usage_buckets PRIMARY KEY (starts_at, team_id, key_id, model, operation)
) WITH (fillfactor = 70);
CREATE INDEX ix_usage_buckets_team_id_starts_at ON usage_buckets (team_id, starts_at);

CREATE TABLE admin_sessions (
    digest BYTEA NOT NULL,
    token_id UUID,
    subject TEXT NOT NULL,
    role TEXT NOT NULL,
    last_seen_at timestamptz DEFAULT now() NOT NULL,
    ended_at timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_admin_sessions PRIMARY KEY (digest),
    CONSTRAINT ck_admin_sessions_role CHECK (role IN ('admin', 'viewer')),
    CONSTRAINT fk_admin_sessions_token_id_admin_tokens FOREIGN KEY(token_id) REFERENCES admin_tokens (id)
);

CREATE TABLE team_keys (
    id TEXT NOT NULL,
    team_id UUID NOT NULL,
    name TEXT NOT NULL,
    digest BYTEA NOT NULL,
    last4 TEXT NOT NULL,
    allowed_models TEXT[],
    allowed_addresses TEXT[],
    requests_per_minute INTEGER,
    max_in_flight INTEGER,
    replaced_by TEXT,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_team_keys PRIMARY KEY (id),
    CONSTRAINT ck_team_keys_requests_per_minute CHECK (requests_per_minute > 0),
    CONSTRAINT ck_team_keys_max_in_flight CHECK (max_in_flight > 0),
    CONSTRAINT fk_team_keys_team_id_teams FOREIGN KEY(team_id) REFERENCES teams (id),
    CONSTRAINT uq_team_keys_digest UNIQUE (digest),
    CONSTRAINT fk_team_keys_replaced_by_team_keys FOREIGN KEY(replaced_by) REFERENCES team_keys (id)
);
CREATE INDEX ix_team_keys_team_id_created_at_id ON team_keys (team_id, created_at, id);

CREATE TABLE quotas (
    id UUID NOT NULL,
    team_id UUID NOT NULL,
    key_id TEXT,
    period TEXT NOT NULL,
    limit_micro BIGINT NOT NULL,
    enforce BOOLEAN DEFAULT true NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_quotas PRIMARY KEY (id),
    CONSTRAINT ck_quotas_period CHECK (period IN ('day', 'week', 'month', 'total')),
    CONSTRAINT ck_quotas_limit_micro CHECK (limit_micro >= 0),
    CONSTRAINT fk_quotas_team_id_teams FOREIGN KEY(team_id) REFERENCES teams (id),
    CONSTRAINT fk_quotas_key_id_team_keys FOREIGN KEY(key_id) REFERENCES team_keys (id)
);
CREATE UNIQUE INDEX uq_quotas_key ON quotas (key_id, period) WHERE key_id IS NOT NULL;
CREATE UNIQUE INDEX uq_quotas_team ON quotas (team_id, period) WHERE key_id IS NULL;

CREATE TABLE tasks (
    id TEXT NOT NULL,
    team_id UUID NOT NULL,
    key_id TEXT NOT NULL,
    hold_id UUID NOT NULL,
    upstream_key_id UUID NOT NULL,
    model TEXT NOT NULL,
    operation TEXT NOT NULL,
    status TEXT NOT NULL,
    body BYTEA NOT NULL,
    credits_cost BIGINT,
    ended_at timestamptz,
    read_at timestamptz,
    next_read_at timestamptz DEFAULT now() NOT NULL,
    leased_until timestamptz,
    failed_reads INTEGER DEFAULT 0 NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_tasks PRIMARY KEY (id),
    CONSTRAINT fk_tasks_team_id_teams FOREIGN KEY(team_id) REFERENCES teams (id),
    CONSTRAINT fk_tasks_key_id_team_keys FOREIGN KEY(key_id) REFERENCES team_keys (id),
    CONSTRAINT fk_tasks_upstream_key_id_upstream_keys FOREIGN KEY(upstream_key_id) REFERENCES upstream_keys (id)
) WITH (fillfactor = 80);
CREATE INDEX ix_tasks_created_at_id ON tasks (created_at, id);
CREATE INDEX ix_tasks_team_id_created_at_id ON tasks (team_id, created_at, id);
CREATE INDEX ix_tasks_unfinished ON tasks (next_read_at) WHERE ended_at IS NULL;

CREATE TABLE quota_periods (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    quota_id UUID NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    settled BIGINT DEFAULT 0 NOT NULL,
    held BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT pk_quota_periods PRIMARY KEY (id),
    CONSTRAINT uq_quota_periods_quota_id_starts_at UNIQUE (quota_id, starts_at),
    CONSTRAINT fk_quota_periods_quota_id_quotas FOREIGN KEY(quota_id) REFERENCES quotas (id) ON DELETE CASCADE
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
"""

# A month of each partitioned table; `gateway_ensure_partitions` is called ahead of time by the running gateway too.
PARTITIONS = """
CREATE TABLE holds_default PARTITION OF holds DEFAULT WITH (fillfactor = 80);
CREATE TABLE ledger_entries_default PARTITION OF ledger_entries DEFAULT;
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

CREATE FUNCTION gateway_month_bound(month date) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM month::timestamp AT TIME ZONE 'UTC') * 1000)::bigint), 12, '0')
            || repeat('0', 20))::uuid
$$;

CREATE FUNCTION gateway_ensure_partitions(first_month date, months integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    month date := date_trunc('month', first_month)::date;
    parent text;
    child text;
    made integer := 0;
BEGIN
    FOR i IN 1..months LOOP
        FOREACH parent IN ARRAY ARRAY['holds', 'ledger_entries', 'attempts'] LOOP
            child := parent || to_char(month, '_YYYY_MM');
            IF to_regclass(child) IS NULL THEN
                EXECUTE format(
                    'CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)%s', child, parent,
                    gateway_month_bound(month), gateway_month_bound((month + interval '1 month')::date),
                    CASE parent WHEN 'holds' THEN ' WITH (fillfactor = 80)' ELSE '' END);
                made := made + 1;
            END IF;
        END LOOP;
        month := (month + interval '1 month')::date;
    END LOOP;
    RETURN made;
END
$$;

SELECT gateway_ensure_partitions(current_date, 3);
"""

APPEND_ONLY = """
CREATE FUNCTION gateway_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: correct it with a new entry', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION gateway_refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION gateway_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_entries
    FOR EACH ROW EXECUTE FUNCTION gateway_refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION gateway_refuse_change();
"""


def upgrade() -> None:
    for script in (TABLES, PARTITIONS, APPEND_ONLY):
        op.get_bind().exec_driver_sql(script.replace("%", "%%"))  # the driver reads a lone % as a placeholder


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP TABLE audit_entries, idempotency_records, usage_buckets, attempts, ledger_entries, holds, quota_periods,
            quotas, tasks, upstream_keys, admin_sessions, admin_tokens, team_keys, teams;
        DROP FUNCTION gateway_ensure_partitions(date, integer);
        DROP FUNCTION gateway_month_bound(date);
        DROP FUNCTION gateway_refuse_change();
        """
    )
