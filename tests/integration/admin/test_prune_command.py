"""`db prune` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from gateway.ids import uuid7
from tests.integration.ledger.book import address


@pytest.fixture
def environment(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "GATEWAY_DATABASE__URL": database_url,
        "GATEWAY_REDIS__URL": redis_url,
        "GATEWAY_SECRETS__MASTER_KEYS": "mQ7xV2pLw9TzR4kYc8NfH3sJb6GdA1eU",
        "GATEWAY_SECRETS__KEY_PEPPER": "zK5nW8rXe2BvM9tQj4LhD7yPf3CsG6oA",
    }


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "db", "prune", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def an_old_hold(url: str) -> datetime:
    """One settled call of some months ago, with everything that belongs to it; its month."""
    at = (datetime.now(UTC).replace(day=15) - timedelta(days=95)).replace(day=3, hour=12)
    with psycopg.connect(address(url), autocommit=True) as connection:
        team, hold = uuid7(), uuid7(int(at.timestamp() * 1000))
        connection.execute("INSERT INTO teams (id, slug, name) VALUES (%s, 'old', 'Old')", (team,))
        connection.execute(
            "INSERT INTO holds (id, team_id, key_id, request_id, operation, model, quote, settled, state, ended_at,"
            " placed_at) VALUES (%s, %s, 'k', 'r', 'o', 'm', 5000000, 5000000, 'settled', %s, %s)",
            (hold, team, at, at),
        )
        for kind, held, settled in (("place", 5_000_000, 0), ("settle", -5_000_000, 5_000_000)):
            connection.execute(
                "INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled)"
                " VALUES (%s, %s, %s, 'k', '{}', %s, %s)",
                (hold, kind, team, held, settled),
            )
        connection.execute(
            "INSERT INTO usage_buckets (starts_at, team_id, key_id, model, operation, day, requests, credits)"
            " VALUES (date_bin('15 minutes', %s, '2000-01-01Z'), %s, 'k', 'm', 'o', %s, 1, 5000000)",
            (at, team, at.date()),
        )
    return at


def test_a_month_goes_by_command(environment: dict[str, str], database_url: str, tmp_path: Path) -> None:
    at = an_old_hold(database_url)
    before = f"{datetime.now(UTC):%Y-%m}"

    refused = run(environment, "--before", before, "--yes")
    assert (refused.returncode, "--export DIR, or --no-export" in refused.stderr) == (2, True)
    refused = run(environment, "--before", before, "--export", str(tmp_path / "out"))
    assert (refused.returncode, "repeat the command with --yes" in refused.stderr) == (2, True)
    assert run(environment, "--before", "soon", "--dry-run").returncode == 2

    planned = json.loads(run(environment, "--before", before, "--dry-run", "--json").stdout)
    assert planned["ok"], planned
    [month] = planned["months"]
    assert (month["month"], month["holds"], month["entries"], month["settled"]) == (f"{at:%Y-%m}", 1, 2, "5")

    done = run(environment, "--before", before, "--export", str(tmp_path / "out"), "--yes", "--json")
    assert done.returncode == 0, done.stderr
    [month] = json.loads(done.stdout)["months"]
    assert (month["holds"], month["settled"]) == (1, "5")
    assert sorted(path.name for path in (tmp_path / "out" / f"{at:%Y-%m}").iterdir()) == [
        "attempts.jsonl.gz",
        "holds.jsonl.gz",
        "idempotency_records.jsonl.gz",
        "ledger_entries.jsonl.gz",
        "manifest.json",
        "tasks.jsonl.gz",
    ]
    again = run(environment, "--before", before, "--no-export", "--yes")
    assert (again.returncode, again.stderr.strip()) == (0, "There is no month before that.")
