"""Many rows for the lists of the admin API: made in Postgres, the same every time.

The rows fit together as far as lists show them: holds have keys, attempts, entries, usage and tasks. They are not what
a ledger would have made, so `ledger verify` finds differences. Few keys and models have most of the calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from sqlalchemy import make_url, text

from gateway.credits.rollups import Rollups
from gateway.db.engine import Database

MODELS = 12
UPSTREAM_KEYS = 20
DAYS = 60
FIRST_TEAM = 0.1  # of all keys: one team has many


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many rows of each kind; every hold has an attempt and two entries."""

    holds: int = 1_000_000
    tasks: int = 300_000
    keys: int = 10_000
    teams: int = 1_000
    audit: int = 100_000
    refusals: int = 100_000
    admin_tokens: int = 1_000

    def named(self) -> dict[str, float]:
        """The numbers the statements are filled with."""
        first = int(self.keys * FIRST_TEAM)
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "first": first,
            "others": max(1, self.teams - 1),
            "days": DAYS,
            "models": MODELS,
            "upstream": UPSTREAM_KEYS,
        }


def fill(
    connection: psycopg.Connection[Any], sizes: Sizes, told: Callable[[str], None] = lambda _: None
) -> None:
    """Fills an empty, migrated database; `told` hears which rows are made."""
    values = sizes.named()
    with connection.transaction():
        connection.execute("SELECT setseed(0.42)")
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute(_IDS)
        connection.execute("SELECT gateway_ensure_partitions((now() - interval '70 days')::date, 6)")
        # Guards of single changes, a look-up a row; what they keep in order is in order here.
        connection.execute("SET LOCAL session_replication_role = replica")
        for name, statement in STATEMENTS.items():
            told(name)
            connection.execute(statement, values)
    connection.execute("DROP FUNCTION bench_id(double precision, integer), bench_key(integer)")
    connection.execute("VACUUM (ANALYZE)")


async def sum_days(url: str) -> None:
    """Sums the days that are over, as a running gateway does."""
    own = Database(url, statement_timeout=30.0)
    try:
        async with asyncio.timeout(600):
            rollups, unsummed = Rollups(own), True
            while unsummed:
                await rollups.once()
                async with own.autocommit() as connection:
                    unsummed = bool(await connection.scalar(_UNSUMMED))
    finally:
        await own.close()
    with psycopg.connect(
        make_url(url).set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
    ) as connection:
        connection.execute(
            "VACUUM (ANALYZE) usage_days, usage_days_closed, usage_days_late, upstream_key_days"
        )


_UNSUMMED = text("""
    SELECT EXISTS (SELECT FROM usage_buckets WHERE starts_at < date_trunc('day', now() - interval '1 hour', 'UTC')
                   AND (starts_at AT TIME ZONE 'UTC')::date NOT IN (SELECT utc_day FROM usage_days_closed))
""")
_IDS: LiteralString = """
CREATE FUNCTION bench_id(seconds_ago double precision, number integer) RETURNS uuid LANGUAGE sql AS $$
    SELECT (lpad(to_hex(((extract(epoch FROM now()) - seconds_ago) * 1000)::bigint), 12, '0') || '7'
            || substr(md5(number::text), 1, 3) || '8' || substr(md5(number::text), 5, 15))::uuid
$$;
CREATE FUNCTION bench_key(number integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'k' || lpad(number::text, 9, '0')
$$;
"""

STATEMENTS: dict[str, LiteralString] = {
    "teams": """
INSERT INTO teams (id, slug, name, unlimited, created_at)
SELECT bench_id(9e6 - n, n), 'team-' || n, 'Team ' || n, false, now() - interval '100 days'
FROM generate_series(0, %(teams)s::int - 1) n
""",
    "quotas": """
INSERT INTO quotas (id, team_id, period, limit_micro)
SELECT gen_random_uuid(), id, period, 1000000000000 FROM teams, unnest(ARRAY['month', 'day']) period
""",
    "counters": """
INSERT INTO quota_periods (quota_id, starts_at, ends_at)
SELECT id, date_trunc(period, now()), date_trunc(period, now()) + ('1 ' || period)::interval FROM quotas
""",
    "keys": """
INSERT INTO team_keys (id, team_id, name, digest, last4, quota_key_id, created_at)
SELECT bench_key(n), t.id, 'key ' || n, decode(md5(n::text), 'hex'), 'last', bench_key(n),
       now() - make_interval(secs => 8e6 - n)
FROM generate_series(0, %(keys)s::int - 1) n
JOIN teams t ON t.slug = 'team-' || CASE WHEN n < %(first)s THEN 0 ELSE 1 + (n - %(first)s::int) %% %(others)s::int END
""",
    "upstream keys": """
INSERT INTO upstream_keys (id, label, account, secret, fingerprint, last4)
SELECT bench_id(8e6 - n, n), 'upstream-' || n, 'account-' || n, '', decode(md5(n::text), 'hex'), 'last'
FROM generate_series(0, %(upstream)s::int - 1) n
""",
    # The later of them ended more rarely: the last 2 percent are held.
    "holds": """
INSERT INTO holds (id, team_id, key_id, request_id, operation, model, state, quote, settled, estimated, flags,
                   counters, task_id, upstream_key_id, placed_at, ended_at, reason)
SELECT made.id, k.team_id, k.id, 'req_' || made.n,
       CASE WHEN made.n <= %(tasks)s THEN 'async.images.generations' ELSE 'images.generations' END,
       'model-' || floor(power(made.b, 4) * %(models)s::int)::int, made.state, 8000000,
       CASE made.state WHEN 'settled' THEN 8000000 END, made.n > %(tasks)s, '{}', '{}',
       CASE WHEN made.n <= %(tasks)s THEN 'task_' || made.n END, u.id, made.at,
       CASE WHEN made.state IN ('settled', 'released') THEN made.at + interval '9 seconds' END,
       CASE made.state WHEN 'released' THEN 'rejected_by_pixapi' END
FROM (
    SELECT n, b, k, at, bench_id(extract(epoch FROM now() - at)::double precision, n) AS id,
           CASE WHEN age < 0.002 THEN 'held' WHEN c < 0.0005 THEN 'unknown' WHEN c < 0.03 THEN 'released'
                ELSE 'settled' END AS state
    FROM (
        SELECT n, b, c, k, 1 - n::double precision / %(holds)s AS age,
               now() - make_interval(secs => (1 - n::double precision / %(holds)s) * %(days)s * 86400) AS at
        FROM (SELECT n, random() AS b, random() AS c, floor(power(random(), 3) * %(keys)s::int)::int AS k
              FROM generate_series(1, %(holds)s::int) n) drawn
    ) placed
) made
JOIN team_keys k ON k.id = bench_key(made.k)
JOIN upstream_keys u ON u.label = 'upstream-' || (made.n %% %(upstream)s::int)
""",
    "attempts": """
INSERT INTO attempts (hold_id, number, upstream_key_id, outcome, status, milliseconds, started_at)
SELECT id, 1, upstream_key_id, 'answered', 200, 4200, placed_at FROM holds
""",
    "entries": """
INSERT INTO ledger_entries (hold_id, kind, team_id, counters, held, settled, made_at)
SELECT id, kind, team_id, '{}', CASE kind WHEN 'place' THEN quote ELSE -quote END,
       CASE kind WHEN 'settle' THEN quote ELSE 0 END, placed_at
FROM holds, unnest(CASE state WHEN 'settled' THEN ARRAY['place', 'settle'] WHEN 'released' THEN
    ARRAY['place', 'release'] ELSE ARRAY['place'] END) kind
""",
    # In the order of time, as calls make them.
    "usage": """
INSERT INTO usage_buckets (starts_at, team_id, key_id, model, operation, day, requests, failed, credits,
                           estimated_credits)
SELECT date_bin('15 minutes', placed_at, '2000-01-01'), team_id, key_id, model, operation,
       min((placed_at AT TIME ZONE 'UTC')::date), count(*), count(*) FILTER (WHERE state IN ('released', 'unknown')),
       coalesce(sum(settled), 0), coalesce(sum(settled) FILTER (WHERE estimated), 0)
FROM holds GROUP BY 1, 2, 3, 4, 5 ORDER BY 1
""",
    # Spread over the whole time; the latest thousandth has not ended.
    "tasks": """
INSERT INTO tasks (id, team_id, key_id, hold_id, upstream_key_id, model, operation, status, body, credits_cost,
                   ended_at, created_at)
SELECT 'task_' || n, h.team_id, h.key_id, h.id, h.upstream_key_id, h.model, h.operation,
       CASE WHEN n > %(tasks)s * 0.999 THEN 'processing' WHEN n %% 5000 = 0 THEN 'cancelled'
            WHEN n %% 50 = 0 THEN 'failed' ELSE 'completed' END,
       '{}', 8000000, CASE WHEN n <= %(tasks)s * 0.999 THEN h.placed_at END, h.placed_at
FROM generate_series(1, %(tasks)s::int) n JOIN holds h ON h.request_id = 'req_' || n
""",
    "audit": """
INSERT INTO audit_entries (id, actor, action, subject_type, subject_id, team_id, detail, made_at)
SELECT bench_id(5e6 * (1 - n::double precision / %(audit)s), n),
       CASE WHEN n %% 9973 = 1 THEN 'cli:seldom' ELSE 'admin-token:' || n %% 7 END,
       CASE WHEN n %% 9973 = 2 THEN 'key.rotate' ELSE 'key.update' END,
       CASE WHEN n %% 9973 = 3 THEN 'admin-token' ELSE 'key' END, k.id, k.team_id, '{}', now()
FROM generate_series(1, %(audit)s::int) n JOIN team_keys k ON k.id = bench_key(n %% %(keys)s::int)
""",
    "refusals": """
INSERT INTO refusals (id, request_id, at, team_id, key_id, route, status, reason, message, detail)
SELECT bench_id(n / 2.0, n), 'refused_' || n, now() - make_interval(secs => n / 2.0), k.team_id, k.id,
       'POST /v1/images/generations', 402, 'quota_exceeded', 'no room', '{}'
FROM generate_series(1, %(refusals)s::int) n JOIN team_keys k ON k.id = bench_key(n %% %(keys)s::int)
""",
    "admin tokens": """
INSERT INTO admin_tokens (id, name, role, digest, last4)
SELECT bench_id(4e6 - n, n), 'token ' || n, 'viewer', decode(md5(n::text), 'hex'), 'last'
FROM generate_series(1, %(admin_tokens)s::int) n
""",
}
