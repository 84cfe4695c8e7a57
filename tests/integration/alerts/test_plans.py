"""With many quotas, holds and tasks a pass stays short: its queries go by indexes over little."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from sqlalchemy import text

from gateway.alerts import snapshot
from gateway.alerts.facts import OwnFacts
from gateway.credits.amount import MICRO
from gateway.db.engine import allow
from tests.integration.alerts.conftest import Alerting

QUOTAS, PERIODS, ROWS = 5_000, 20, 50_000

FILL = (
    "INSERT INTO teams (id, slug, name) SELECT gen_random_uuid(), 't-' || n, 'T' FROM generate_series(1, :quotas) n",
    "INSERT INTO quotas (id, team_id, period, limit_micro) SELECT gen_random_uuid(), id, 'day', :limit FROM teams",
    """INSERT INTO quota_periods (quota_id, starts_at, ends_at, settled)
    SELECT q.id, p, p + interval '1 day', CASE WHEN hashtext(q.id::text) % 50 = 0 THEN :limit / 2 + 1 ELSE 10 END
    FROM quotas q CROSS JOIN generate_series(date_trunc('day', now()) - interval '1 day' * :periods,
                                             date_trunc('day', now()), interval '1 day') p""",
    """INSERT INTO holds (id, team_id, key_id, request_id, operation, model, state, quote, settled, ended_at)
    SELECT gateway_uuid7(), t.id, 'k', 'r', 'o', 'm', CASE WHEN n % 10000 = 0 THEN 'unknown' ELSE 'settled' END,
           8, 8, now()
    FROM generate_series(1, :rows) n CROSS JOIN (SELECT id FROM teams LIMIT 1) t""",
    "INSERT INTO team_keys (id, team_id, name, digest, last4) SELECT 'k', id, 'k', 'd', '0000' FROM teams LIMIT 1",
    """INSERT INTO upstream_keys (id, label, account, secret, fingerprint, last4)
    VALUES (gen_random_uuid(), 'u', 'a', '', '', '0000')""",
    """INSERT INTO tasks (id, team_id, key_id, hold_id, upstream_key_id, model, operation, status, body, credits_cost,
                          charge, quote, ended_at)
    SELECT 'task_' || n, k.team_id, k.id, gen_random_uuid(), u.id, 'm', 'o', 'completed', '', 8,
           CASE WHEN n % 10000 = 0 THEN 9 ELSE 8 END, 10, now()
    FROM generate_series(1, :rows) n CROSS JOIN team_keys k CROSS JOIN upstream_keys u""",
    "ANALYZE",
)


@pytest.fixture
async def full(alerting: Alerting) -> Alerting:
    values = {"quotas": QUOTAS, "limit": 100 * MICRO, "periods": PERIODS, "rows": ROWS}
    async with alerting.database.transaction() as connection:
        await allow(connection, 60)
        for statement in FILL:
            wanted = set(re.findall(r"(?<!:):([a-z]+)", statement))
            await connection.execute(text(statement), {name: values[name] for name in wanted})
    return alerting


@pytest.mark.long
async def test_a_snapshot_reads_little(full: Alerting) -> None:
    await _no_large_table_is_read_from_end_to_end(full)
    best = 1e9
    async with full.database.autocommit() as connection:
        for _ in range(3):
            began = time.perf_counter()
            found = await snapshot.read(connection, OwnFacts(), (50, 80, 95, 100))
            best = min(best, time.perf_counter() - began)
    print(f"snapshot: {best * 1000:.0f} ms, {len(found.quotas)} quotas")
    assert 20 < len(found.quotas) < 400
    assert found.unknown is not None
    assert found.unknown.count == 5
    assert [(news.kind, news.count) for news in found.costs] == [("price_drift", 5)]
    assert best < 0.25  # loose: the machine may be busy


async def _no_large_table_is_read_from_end_to_end(full: Alerting) -> None:
    quotas: dict[str, Any] = {"lowest": 45, "near": 95, "tenth": 10}
    for query, values in (
        (snapshot._QUOTAS, quotas),
        (snapshot._UNKNOWN, {"most": 10_000}),
        (snapshot._COSTS, {}),
        (snapshot._LAG, {}),
    ):
        async with full.database.autocommit() as connection:
            rows = await connection.execute(text(f"EXPLAIN (ANALYZE, BUFFERS OFF) {query.text}"), values)
            plan = "\n".join(row[0] for row in rows)
        # Partitions of months to come cost nothing.
        assert not re.search(
            r"Seq Scan on (holds|tasks|quota_periods)\S*( \S+)?  \(cost=0\.00\.\.(?!0\.00)", plan
        ), plan
