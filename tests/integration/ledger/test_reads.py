"""What a verb reads does not grow with what there is."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from gateway.ids import uuid7
from tests.integration.ledger.book import address

TEAMS = 60
READ = """
    SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
    WHERE relname IN ('teams', 'team_keys', 'quotas', 'quota_periods')
"""
MANY = f"""
    INSERT INTO teams (id, slug, name)
        SELECT gen_random_uuid(), 'team-' || n, 'T' FROM generate_series(1, {TEAMS}) n;
    INSERT INTO team_keys (id, team_id, name, digest, last4) SELECT slug, id, 'k', slug::bytea, 'last' FROM teams;
    INSERT INTO quotas (id, team_id, key_id, period, limit_micro)
        SELECT gen_random_uuid(), id, key, 'month', 10 ^ 12 FROM teams, unnest(ARRAY[NULL, slug]) key;
    SELECT gateway_open_counters(id) FROM teams;
    ANALYZE
"""


@pytest.mark.parametrize("size", [1, 3])
def test_placing_and_ending_reads_the_rows_of_its_own_teams(database_url: str, size: int) -> None:
    """Plans are made when the tables are small, and kept while they grow."""
    with psycopg.connect(address(database_url), autocommit=True) as sql:
        for statement in MANY.split(";"):
            sql.execute(statement)
        row = sql.execute("SELECT id, slug FROM teams LIMIT 1").fetchone()
        assert row is not None
        calls: list[dict[str, Any]] = [
            {"id": str(uuid7()), "team": str(row[0]), "key": row[1], "request": "r", "quote": 1}
            | {"operation": "images", "model": "m"}
            for _ in range(size)
        ]
        ends = [{"id": call["id"], "state": "settled", "settled": 1} for call in calls]
        for function, items in (("gateway_place_calls", calls), ("gateway_end", ends)):
            with sql.transaction():
                before: dict[str, int] = dict(sql.execute(READ).fetchall())
                sql.execute(f"SELECT * FROM {function}(%s, NULL)", (json.dumps(items),))
                read = {table: rows - before[table] for table, rows in sql.execute(READ).fetchall()}
            assert max(read.values()) < TEAMS / 2, (function, read)
