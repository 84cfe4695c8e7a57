"""Months come and go while calls run: partitions are attached beside the traffic, and pruned months leave their sums.

What a pruned month has moved on each counter stays in the ledger as `carry` entries; what it has added to usage stays in
`carried_usage`, so that the proof can still be made. `pruned_months` says which months are gone, how much was in them,
and which export has it. Neither can be changed.
"""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE pruned_months (
    month date NOT NULL,
    holds bigint NOT NULL,
    entries bigint NOT NULL,
    attempts bigint NOT NULL,
    tasks bigint NOT NULL,
    records bigint NOT NULL,
    settled bigint NOT NULL,
    kept bigint NOT NULL,
    manifest_sha256 text,
    actor text NOT NULL,
    pruned_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_pruned_months PRIMARY KEY (month)
);

CREATE TABLE carried_usage (
    month date NOT NULL,
    utc_day date NOT NULL,
    team_id uuid NOT NULL,
    model text NOT NULL,
    operation text NOT NULL,
    requests bigint NOT NULL,
    failed bigint NOT NULL,
    shadow_refused bigint NOT NULL,
    credits bigint NOT NULL,
    estimated_credits bigint NOT NULL,
    CONSTRAINT pk_carried_usage PRIMARY KEY (month, utc_day, team_id, model, operation)
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON pruned_months
    FOR EACH ROW EXECUTE FUNCTION gateway_refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON pruned_months
    FOR EACH STATEMENT EXECUTE FUNCTION gateway_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON carried_usage
    FOR EACH ROW EXECUTE FUNCTION gateway_refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON carried_usage
    FOR EACH STATEMENT EXECUTE FUNCTION gateway_refuse_change();

CREATE FUNCTION gateway_refuse_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is being pruned: nothing in it changes any more', TG_TABLE_NAME
        USING ERRCODE = 'object_not_in_prerequisite_state';
END
$$;

-- What was placed before this day may be gone.
CREATE FUNCTION gateway_pruned_until() RETURNS date LANGUAGE sql STABLE AS $$
    SELECT coalesce((max(month) + interval '1 month')::date, '-infinity') FROM pruned_months
$$;
"""

# CREATE TABLE … PARTITION OF would lock the parent against everything. A table of its own, attached when it is ready,
# lets calls go on; only the default partition is locked for a moment, while Postgres sees that it has no row of that
# month. TRUNCATE of a partition fires no trigger of its parent, so partitions of the ledger have one of their own.
PARTITIONS = """
CREATE FUNCTION gateway_prepare_partition(parent text, month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    child text := parent || to_char(month, '_YYYY_MM');
BEGIN
    IF to_regclass(child) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)%s', child, parent,
                   CASE parent WHEN 'holds' THEN ' WITH (fillfactor = 80)' ELSE '' END);
    IF parent = 'ledger_entries' THEN
        EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %I
                        FOR EACH STATEMENT EXECUTE FUNCTION gateway_refuse_change()', child);
    END IF;
END
$$;

-- Rows of the month that lie in the default partition, `most` of them (NULL: any number), move in the same transaction.
CREATE FUNCTION gateway_attach_partition(parent text, month date, most bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    child text := parent || to_char(month, '_YYYY_MM');
    other text := parent || '_default';
    low uuid := gateway_month_bound(month);
    high uuid := gateway_month_bound((month + interval '1 month')::date);
    within text := format('%1$I >= %2$L AND %1$I < %3$L', CASE parent WHEN 'holds' THEN 'id' ELSE 'hold_id' END, low, high);
    stray bigint;
    moved bigint;
BEGIN
    IF month < gateway_pruned_until() THEN
        RAISE EXCEPTION '% was pruned', to_char(month, 'YYYY-MM') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('LOCK TABLE ONLY %I IN SHARE UPDATE EXCLUSIVE MODE', parent);
    IF EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = to_regclass(child)) THEN
        RETURN false;
    END IF;
    PERFORM gateway_prepare_partition(parent, month);
    EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', other);
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %I WHERE %s LIMIT %s) s', other, within,
                   coalesce((most + 1)::text, 'ALL')) INTO stray;
    IF stray > most THEN
        RAISE EXCEPTION 'more than % rows of % lie in %: run pixapi-gateway db upgrade in a quiet minute', most,
            to_char(month, 'YYYY-MM'), other USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF stray > 0 THEN
        EXECUTE format('INSERT INTO %I SELECT * FROM ONLY %I WHERE %s', child, other, within);
        GET DIAGNOSTICS moved = ROW_COUNT;
        IF parent = 'ledger_entries' THEN
            EXECUTE format('ALTER TABLE %I DISABLE TRIGGER append_only', other);
        END IF;
        EXECUTE format('DELETE FROM ONLY %I WHERE %s', other, within);
        GET DIAGNOSTICS stray = ROW_COUNT;
        IF parent = 'ledger_entries' THEN
            EXECUTE format('ALTER TABLE %I ENABLE TRIGGER append_only', other);
        END IF;
        IF moved <> stray THEN
            RAISE EXCEPTION '% rows were copied from % and % taken out', moved, other, stray;
        END IF;
    END IF;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, low, high);
    RETURN true;
END
$$;

-- What is missing of the months from one on, of those that have rows in a default partition, and of those that were made
-- in part.
CREATE FUNCTION gateway_missing_partitions(first_month date, months integer)
RETURNS TABLE (parent text, month date) LANGUAGE sql STABLE AS $$
    WITH wanted AS (
        SELECT (date_trunc('month', first_month) + n * interval '1 month')::date AS month
        FROM generate_series(0, months - 1) AS n
        UNION
        SELECT date_trunc('month', to_timestamp(
                   ('x' || left(replace(s.id::text, '-', ''), 12))::bit(48)::bigint / 1000.0) AT TIME ZONE 'UTC')::date
        FROM (SELECT id FROM holds_default
              UNION ALL SELECT hold_id FROM ledger_entries_default
              UNION ALL SELECT hold_id FROM attempts_default) s
        WHERE s.id >= gateway_month_bound('2020-01-01')
          AND s.id < gateway_month_bound((date_trunc('month', first_month) + months * interval '1 month')::date)
        UNION
        SELECT to_date(right(c.relname, 7), 'YYYY_MM') FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = ANY (ARRAY['holds', 'ledger_entries', 'attempts']::regclass[])
          AND c.relname ~ '_[0-9]{4}_[0-9]{2}$'
    )
    SELECT p.parent, w.month FROM wanted w CROSS JOIN unnest(ARRAY['holds', 'ledger_entries', 'attempts']) AS p(parent)
    WHERE w.month >= gateway_pruned_until()
      AND NOT EXISTS (SELECT FROM pg_inherits i
                      WHERE i.inhrelid = to_regclass(p.parent || to_char(w.month, '_YYYY_MM')))
    ORDER BY w.month, p.parent
$$;

CREATE OR REPLACE FUNCTION gateway_ensure_partitions(first_month date, months integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    made integer := 0;
    missing record;
BEGIN
    FOR missing IN SELECT * FROM gateway_missing_partitions(first_month, months) LOOP
        made := made + gateway_attach_partition(missing.parent, missing.month, NULL)::integer;
    END LOOP;
    RETURN made;
END
$$;

DO $$
DECLARE
    child regclass;
BEGIN
    FOR child IN SELECT i.inhrelid::regclass FROM pg_inherits i WHERE i.inhparent = 'ledger_entries'::regclass LOOP
        EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %s
                        FOR EACH STATEMENT EXECUTE FUNCTION gateway_refuse_change()', child);
    END LOOP;
END
$$;
"""

DOWN = """
DO $$
DECLARE
    child regclass;
BEGIN
    IF EXISTS (SELECT FROM pruned_months) THEN
        RAISE EXCEPTION 'months were pruned: without their sums the ledger could not be proved any more';
    END IF;
    FOR child IN SELECT i.inhrelid::regclass FROM pg_inherits i WHERE i.inhparent = 'ledger_entries'::regclass LOOP
        EXECUTE format('DROP TRIGGER append_only_truncate ON %s', child);
    END LOOP;
END
$$;
DROP FUNCTION gateway_missing_partitions(date, integer);
DROP FUNCTION gateway_attach_partition(text, date, bigint);
DROP FUNCTION gateway_prepare_partition(text, date);
DROP FUNCTION gateway_pruned_until();
DROP FUNCTION gateway_refuse_frozen();
DROP TABLE carried_usage, pruned_months;

CREATE OR REPLACE FUNCTION gateway_ensure_partitions(first_month date, months integer) RETURNS integer
LANGUAGE plpgsql AS $$
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
"""


def upgrade() -> None:
    for script in (TABLES, PARTITIONS):
        op.get_bind().exec_driver_sql(script.replace("%", "%%"))  # the driver reads a lone % as a placeholder


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN.replace("%", "%%"))
