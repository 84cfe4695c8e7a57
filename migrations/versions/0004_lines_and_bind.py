"""A key and those that replaced it share their quotas; tasks are bound in groups; clocks may step back.

`team_keys.quota_key_id` names the first key of a line of rotations: the quotas of the whole line are its quotas, from
the first key to the newest, so that a rotation moves nothing. It never changes.
"""

from __future__ import annotations

from types import ModuleType

from alembic import context, op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A trigger fills the column in, so that a process of the release before can still issue keys.
LINES = """
ALTER TABLE team_keys ADD COLUMN quota_key_id text,
    ADD CONSTRAINT fk_team_keys_quota_key_id_team_keys FOREIGN KEY (quota_key_id) REFERENCES team_keys (id);

WITH RECURSIVE lines AS (
    SELECT k.id, k.replaced_by, k.id AS first FROM team_keys k
    WHERE NOT EXISTS (SELECT FROM team_keys b WHERE b.replaced_by = k.id)
    UNION ALL
    SELECT k.id, k.replaced_by, l.first FROM lines l JOIN team_keys k ON k.id = l.replaced_by
)
UPDATE team_keys k SET quota_key_id = l.first FROM lines l WHERE l.id = k.id;

ALTER TABLE team_keys ALTER COLUMN quota_key_id SET NOT NULL;
CREATE INDEX ix_team_keys_quota_key_id ON team_keys (quota_key_id);

CREATE FUNCTION gateway_own_quotas() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.quota_key_id := NEW.id;
    RETURN NEW;
END
$$;

CREATE TRIGGER own_quotas BEFORE INSERT ON team_keys
    FOR EACH ROW WHEN (NEW.quota_key_id IS NULL) EXECUTE FUNCTION gateway_own_quotas();
"""

# Until now a rotation made copies: the newest key's quotas become those of its line, what its elder had goes. Running
# counters are closed and opened anew, because those of the newest lack what the elder have spent since.
JOIN_QUOTAS = """
DO $$
DECLARE
    line_teams uuid[];
    closing bigint[];
BEGIN
    SELECT array_agg(DISTINCT k.team_id ORDER BY k.team_id) INTO line_teams
    FROM team_keys k WHERE k.quota_key_id <> k.id;
    PERFORM gateway_lock_team(t.id, true) FROM unnest(line_teams) AS t(id);
    PERFORM FROM holds h WHERE h.team_id = ANY (line_teams) AND h.state IN ('held', 'unknown')
        ORDER BY h.id FOR NO KEY UPDATE;

    SELECT array_agg(c.id) INTO closing
    FROM quota_periods c
    JOIN quotas q ON q.id = c.quota_id
    JOIN team_keys k ON k.id = q.key_id
    WHERE k.replaced_by IS NOT NULL
       OR (k.quota_key_id <> k.id AND (c.ends_at IS NULL OR c.ends_at > now()));
    INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, reason)
    SELECT gateway_uuid7(), 'adjust', q.team_id, q.key_id, ARRAY[c.id], -c.held, -c.settled,
           'the quotas of replaced keys were joined'
    FROM quota_periods c JOIN quotas q ON q.id = c.quota_id
    WHERE c.id = ANY (closing) AND (c.held <> 0 OR c.settled <> 0);
    UPDATE holds SET counters = ARRAY(SELECT c FROM unnest(counters) c WHERE NOT c = ANY (closing))
    WHERE team_id = ANY (line_teams) AND state IN ('held', 'unknown') AND counters && closing;
    DELETE FROM quota_periods c WHERE c.id = ANY (closing);

    DELETE FROM quotas q USING team_keys k WHERE k.id = q.key_id AND k.replaced_by IS NOT NULL;
    UPDATE quotas q SET key_id = k.quota_key_id FROM team_keys k WHERE k.id = q.key_id AND k.quota_key_id <> k.id;
    PERFORM gateway_open_counters(t.id) FROM unnest(line_teams) AS t(id);
END
$$;
"""

# The way back: the newest key keeps quotas and counters, others that still work get a copy.
PART_QUOTAS = """
SELECT gateway_lock_team(t.team_id, true)
FROM (SELECT DISTINCT team_id FROM team_keys WHERE quota_key_id <> id ORDER BY team_id) t;

UPDATE quotas q SET key_id = k.id
FROM team_keys k WHERE k.quota_key_id = q.key_id AND k.replaced_by IS NULL AND k.id <> q.key_id;

INSERT INTO quotas (id, team_id, key_id, period, limit_micro, enforce)
SELECT gateway_uuid7(), q.team_id, k.id, q.period, q.limit_micro, q.enforce
FROM quotas q
JOIN team_keys n ON n.id = q.key_id
JOIN team_keys k ON k.quota_key_id = n.quota_key_id AND k.id <> n.id
WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now());

SELECT gateway_open_counters(t.team_id)
FROM (SELECT DISTINCT team_id FROM team_keys WHERE quota_key_id <> id ORDER BY team_id) t;
"""

DROP = """
DROP FUNCTION gateway_bind(jsonb);
DROP TRIGGER own_quotas ON team_keys;
DROP FUNCTION gateway_own_quotas();
ALTER TABLE team_keys DROP COLUMN quota_key_id;
"""

# As in 0002, and a key's counter starts with what every key of its line has spent and holds. A period counts what was
# placed before it ends too: there are holds from later on when the clock has stepped back.
COUNTERS = """
CREATE OR REPLACE FUNCTION gateway_open_counters(team uuid) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    quota record;
    counter bigint;
    spent bigint;
    open_now bigint;
    made integer := 0;
BEGIN
    PERFORM gateway_lock_team(team, true);
    PERFORM FROM holds h WHERE h.state IN ('held', 'unknown') AND h.team_id = team ORDER BY h.id FOR NO KEY UPDATE;
    FOR quota IN
        SELECT q.id, q.key_id, p.starts_at, p.ends_at, coalesce(p.ends_at, 'infinity') AS before,
               ARRAY(SELECT k.id FROM team_keys k WHERE k.quota_key_id = q.key_id) AS keys
        FROM quotas q
        JOIN teams t ON t.id = q.team_id
        CROSS JOIN LATERAL gateway_period(q.period, t.time_zone, now()) p
        WHERE q.team_id = team
          AND NOT EXISTS (SELECT FROM quota_periods c WHERE c.quota_id = q.id AND c.starts_at <= now()
                          AND (c.ends_at IS NULL OR c.ends_at > now()))
        ORDER BY q.id
        FOR KEY SHARE OF q  -- one that is being removed is waited for, and gone
    LOOP
        made := made + 1;
        SELECT coalesce(sum(u.credits), 0) INTO spent
        FROM usage_buckets u
        WHERE u.team_id = team AND u.starts_at >= quota.starts_at AND u.starts_at < quota.before
          AND (quota.key_id IS NULL OR u.key_id = ANY (quota.keys));
        SELECT coalesce(sum(h.quote), 0) INTO open_now
        FROM holds h
        WHERE h.state IN ('held', 'unknown') AND h.team_id = team
          AND h.placed_at >= quota.starts_at AND h.placed_at < quota.before
          AND (quota.key_id IS NULL OR h.key_id = ANY (quota.keys));
        INSERT INTO quota_periods (quota_id, starts_at, ends_at, settled, held)
        VALUES (quota.id, quota.starts_at, quota.ends_at, spent, open_now)
        ON CONFLICT (quota_id, starts_at) DO NOTHING
        RETURNING id INTO counter;
        IF counter IS NULL THEN  -- the zone's rules have changed since it was opened: the period is longer now
            UPDATE quota_periods c SET ends_at = quota.ends_at
            WHERE c.quota_id = quota.id AND c.starts_at = quota.starts_at;
            CONTINUE;
        END IF;
        UPDATE holds SET counters = counters || counter
        WHERE state IN ('held', 'unknown') AND team_id = team
          AND placed_at >= quota.starts_at AND placed_at < quota.before
          AND (quota.key_id IS NULL OR key_id = ANY (quota.keys));
        IF spent <> 0 OR open_now <> 0 THEN
            INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, reason)
            VALUES (gateway_uuid7(), 'carry', team, quota.key_id, ARRAY[counter], open_now, spent,
                    'what the period had before this counter');
        END IF;
    END LOOP;
    RETURN made;
END
$$;
"""

# As in 0002, but: a key counts on the quotas of the first of its line (its owner here); a counter that has ended hides
# no longer one that began earlier; a repeated hold answers `shadow` as the first time.
PLACE = """
CREATE OR REPLACE FUNCTION gateway_place(items jsonb)
RETURNS TABLE (id uuid, outcome text, remaining bigint, shadow boolean, on_key boolean, period text,
               limit_micro bigint, settled bigint, held bigint, resets_at timestamptz)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    item_ids uuid[];
    item_teams uuid[];
    item_owners text[];
    item_quotes bigint[];
    known_ids uuid[];
    shadow_ids uuid[];
    item record;
    slot integer;
    refusing integer;
    counter_ids bigint[];
    team_ids uuid[];
    key_ids text[];
    periods text[];
    limits bigint[];
    enforced boolean[];
    ends timestamptz[];
    settled_now bigint[];
    held_now bigint[];
    added bigint[];
    placed_numbers bigint[] := '{}';
    placed_ids uuid[] := '{}';
    placed_counters text[] := '{}';
    placed_shadow boolean[] := '{}';
    is_shadow boolean;
    is_new boolean;
    tightest bigint;
    moved integer;
BEGIN
    SELECT array_agg(i.id), array_agg(i.team), array_agg(i.quote),
           array_agg(coalesce((SELECT k.quota_key_id FROM team_keys k WHERE k.id = i.key), i.key))
    INTO item_ids, item_teams, item_quotes, item_owners
    FROM jsonb_to_recordset(items) AS i(id uuid, team uuid, key text, quote bigint);

    PERFORM gateway_lock_team(t.team, false)
    FROM (SELECT DISTINCT u.team FROM unnest(item_teams) AS u(team) ORDER BY u.team) t;

    SELECT array_agg(c.id) INTO counter_ids
    FROM (
        SELECT q.id FROM quotas q WHERE q.key_id IS NULL AND q.team_id = ANY (item_teams)
        UNION ALL
        SELECT q.id FROM quotas q
        WHERE q.key_id IS NOT NULL AND q.key_id = ANY (item_owners) AND q.team_id = ANY (item_teams)
    ) q
    CROSS JOIN LATERAL (
        SELECT c.id FROM quota_periods c
        WHERE c.quota_id = q.id AND c.starts_at <= now() AND (c.ends_at IS NULL OR c.ends_at > now())
        ORDER BY c.starts_at DESC LIMIT 1
    ) c;
    PERFORM FROM quota_periods c WHERE c.id = ANY (counter_ids) ORDER BY c.id FOR NO KEY UPDATE;

    -- Every quota that applies to anything in the batch, with its counter as it is now that it is locked.
    SELECT array_agg(s.counter), array_agg(s.team_id), array_agg(s.key_id), array_agg(s.period),
           array_agg(s.limit_micro), array_agg(s.enforce), array_agg(s.ends_at),
           array_agg(s.settled), array_agg(s.held), array_agg(0::bigint)
    INTO counter_ids, team_ids, key_ids, periods, limits, enforced, ends, settled_now, held_now, added
    FROM (
        SELECT q.*, c.id AS counter, c.ends_at, c.settled, c.held
        FROM (
            SELECT q.id, q.team_id, q.key_id, q.period, q.limit_micro, q.enforce
            FROM quotas q WHERE q.key_id IS NULL AND q.team_id = ANY (item_teams)
            UNION ALL
            SELECT q.id, q.team_id, q.key_id, q.period, q.limit_micro, q.enforce
            FROM quotas q WHERE q.key_id IS NOT NULL AND q.key_id = ANY (item_owners) AND q.team_id = ANY (item_teams)
        ) q
        LEFT JOIN LATERAL (
            SELECT c.id, c.ends_at, c.settled, c.held FROM quota_periods c
            WHERE c.quota_id = q.id AND c.starts_at <= now() AND (c.ends_at IS NULL OR c.ends_at > now())
            ORDER BY c.starts_at DESC LIMIT 1
        ) c ON true
        ORDER BY c.id, q.id
    ) s;
    SELECT array_agg(h.id), array_agg(h.id) FILTER (WHERE 'shadow_refused' = ANY (h.flags))
    INTO known_ids, shadow_ids
    FROM holds h WHERE h.id = ANY (item_ids);

    FOR item IN
        SELECT i.n, i.id, i.quote, p.slots, p.counters
        FROM unnest(item_ids, item_teams, item_owners, item_quotes) WITH ORDINALITY AS i(id, team, owner, quote, n)
        LEFT JOIN (
            SELECT k.team, k.owner, array_agg(u.slot::integer ORDER BY u.slot) AS slots,
                   array_agg(u.counter ORDER BY u.slot)::text AS counters
            FROM (SELECT DISTINCT d.team, d.owner FROM unnest(item_teams, item_owners) AS d(team, owner)) k
            JOIN unnest(team_ids, key_ids, counter_ids) WITH ORDINALITY AS u(team, owner, counter, slot)
              ON u.team = k.team AND (u.owner IS NULL OR u.owner = k.owner)
            GROUP BY k.team, k.owner
        ) p ON p.team = i.team AND p.owner = i.owner
        ORDER BY i.n
    LOOP
        refusing := NULL;
        is_shadow := coalesce(item.id = ANY (shadow_ids), false);
        tightest := NULL;
        outcome := 'placed';
        is_new := NOT coalesce(item.id = ANY (placed_ids) OR item.id = ANY (known_ids), false);
        IF is_new THEN
            FOREACH slot IN ARRAY coalesce(item.slots, '{}') LOOP
                IF counter_ids[slot] IS NULL THEN
                    outcome := 'no_counter';
                ELSIF settled_now[slot] + held_now[slot] + item.quote > limits[slot] THEN
                    IF enforced[slot] THEN
                        refusing := coalesce(refusing, slot);
                    ELSE
                        is_shadow := true;
                    END IF;
                END IF;
            END LOOP;
            IF outcome = 'placed' AND refusing IS NOT NULL THEN
                outcome := 'refused';
            END IF;
        END IF;
        IF outcome = 'placed' THEN
            IF is_new THEN
                placed_numbers := placed_numbers || item.n;
                placed_ids := placed_ids || item.id;
                placed_counters := placed_counters || coalesce(item.counters, '{}');
                placed_shadow := placed_shadow || is_shadow;
            END IF;
            FOREACH slot IN ARRAY coalesce(item.slots, '{}') LOOP
                IF is_new THEN
                    held_now[slot] := held_now[slot] + item.quote;
                    added[slot] := added[slot] + item.quote;
                END IF;
                IF enforced[slot] THEN
                    tightest := least(tightest, limits[slot] - settled_now[slot] - held_now[slot]);
                END IF;
            END LOOP;
        END IF;
        id := item.id;
        remaining := tightest;
        shadow := is_shadow;
        on_key := key_ids[refusing] IS NOT NULL;
        period := periods[refusing];
        limit_micro := limits[refusing];
        settled := settled_now[refusing];
        held := held_now[refusing];
        resets_at := ends[refusing];
        RETURN NEXT;
    END LOOP;
    IF placed_ids = '{}' THEN
        RETURN;
    END IF;

    UPDATE quota_periods c SET held = c.held + a.added
    FROM unnest(counter_ids, added, limits, enforced) AS a(counter, added, limit_micro, enforced)
    WHERE c.id = a.counter AND a.added <> 0
      AND (NOT a.enforced OR c.settled + c.held + a.added <= a.limit_micro);
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> (SELECT count(*) FROM unnest(added) AS a(added) WHERE a.added <> 0) THEN
        RAISE EXCEPTION 'a counter would pass its limit';
    END IF;

    WITH made AS (
        INSERT INTO holds AS h (id, team_id, key_id, request_id, operation, model, quote, flags, counters, placed_at)
        SELECT i.id, i.team, i.key, i.request, i.operation, i.model, i.quote,
               CASE WHEN p.shadow THEN '{shadow_refused}' ELSE '{}' END::text[], p.counters::bigint[], now()
        FROM ROWS FROM (jsonb_to_recordset(items)
                        AS (id uuid, team uuid, key text, request text, operation text, model text, quote bigint))
             WITH ORDINALITY AS i(id, team, key, request, operation, model, quote, n)
        JOIN unnest(placed_numbers, placed_counters, placed_shadow) AS p(n, counters, shadow) ON p.n = i.n
        RETURNING h.id, h.team_id, h.key_id, h.operation, h.model, h.quote, h.flags, h.counters
    ), entered AS (
        INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled)
        SELECT m.id, 'place', m.team_id, m.key_id, m.counters, m.quote, 0 FROM made m
    )
    INSERT INTO usage_buckets AS u (starts_at, team_id, key_id, model, operation, day, requests, shadow_refused)
    SELECT date_bin('15 minutes', now(), '2000-01-01T00:00:00Z'), m.team_id, m.key_id, m.model, m.operation,
           (now() AT TIME ZONE t.time_zone)::date, m.requests, m.shadow_refused
    FROM (
        SELECT m.team_id, m.key_id, m.model, m.operation, count(*) AS requests,
               count(*) FILTER (WHERE m.flags <> '{}') AS shadow_refused
        FROM made m GROUP BY m.team_id, m.key_id, m.model, m.operation
    ) m
    JOIN teams t ON t.id = m.team_id
    ORDER BY m.team_id, m.key_id, m.model, m.operation
    ON CONFLICT (starts_at, team_id, key_id, model, operation)
    DO UPDATE SET requests = u.requests + excluded.requests,
                  shadow_refused = u.shadow_refused + excluded.shadow_refused;
END
$$;
"""

# items: [{id, team, key, operation, model, task, upstream_key, status, body, sent}]: the task a hold's call was
# accepted as, its body in base64; sent as in gateway_end.
# taken: the task is recorded for another hold already. It stays that one's, and this hold becomes unknown. A task that
# is there for the same hold is not taken, so a batch can be sent again as it is.
BIND = """
CREATE FUNCTION gateway_bind(items jsonb) RETURNS TABLE (id uuid, taken boolean)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    item_ids uuid[];
    item_tasks text[];
    taken_ids uuid[];
BEGIN
    SELECT array_agg(i.id), array_agg(i.task) INTO item_ids, item_tasks
    FROM jsonb_to_recordset(items) AS i(id uuid, task text);

    INSERT INTO tasks (id, team_id, key_id, hold_id, upstream_key_id, model, operation, status, body)
    SELECT i.task, i.team, i.key, i.id, i.upstream_key, i.model, i.operation, i.status, decode(i.body, 'base64')
    FROM ROWS FROM (jsonb_to_recordset(items)
                    AS (id uuid, team uuid, key text, operation text, model text, task text, upstream_key uuid,
                        status text, body text))
         WITH ORDINALITY AS i(id, team, key, operation, model, task, upstream_key, status, body, n)
    ORDER BY i.task, i.n
    ON CONFLICT DO NOTHING;
    SELECT array_agg(i.id) INTO taken_ids
    FROM unnest(item_ids, item_tasks) AS i(id, task) JOIN tasks t ON t.id = i.task
    WHERE t.hold_id <> i.id;

    PERFORM FROM holds h WHERE h.id = ANY (item_ids) ORDER BY h.id FOR NO KEY UPDATE;
    UPDATE holds h SET task_id = i.task, upstream_key_id = i.upstream_key
    FROM jsonb_to_recordset(items) AS i(id uuid, task text, upstream_key uuid)
    WHERE h.id = i.id AND (h.task_id, h.upstream_key_id) IS DISTINCT FROM (i.task, i.upstream_key);
    IF taken_ids IS NOT NULL THEN
        PERFORM FROM gateway_end((
            SELECT jsonb_agg(jsonb_build_object('id', t.id, 'state', 'unknown',
                                                'reason', 'task id already recorded'))
            FROM unnest(taken_ids) AS t(id)));
    END IF;

    INSERT INTO attempts (hold_id, number, upstream_key_id, outcome, status, milliseconds)
    SELECT i.id, s.number, s.upstream_key, s.outcome, s.status, s.milliseconds
    FROM jsonb_to_recordset(items) AS i(id uuid, sent jsonb)
    CROSS JOIN LATERAL jsonb_to_recordset(coalesce(i.sent, '[]'))
         AS s(number smallint, upstream_key uuid, outcome text, status smallint, milliseconds integer)
    ON CONFLICT DO NOTHING;

    RETURN QUERY
    SELECT i.id, coalesce(i.id = ANY (taken_ids), false)
    FROM unnest(item_ids) WITH ORDINALITY AS i(id, n) ORDER BY i.n;
END
$$;
"""


def upgrade() -> None:
    for script in (LINES, COUNTERS, PLACE, BIND, JOIN_QUOTAS):
        _execute(script)


def downgrade() -> None:
    before = _revision("0002")
    for script in (before.COUNTERS, before.PLACE):
        _execute(script.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    for script in (PART_QUOTAS, DROP):
        _execute(script)


def _revision(name: str) -> ModuleType:
    script = context.script.get_revision(name)
    if script is None:
        raise LookupError(f"there is no revision {name}")
    return script.module


def _execute(script: str) -> None:
    op.get_bind().exec_driver_sql(script.replace("%", "%%"))  # the driver reads a lone % as a placeholder
