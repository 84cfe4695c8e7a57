"""The invented history is what a ledger would have left: it proves, adds up, and the admin API tells of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from benchmarks import history, lists
from benchmarks.history import Wanted
from gateway.admin.api.answers import encode
from gateway.admin.api.binding import invoke
from gateway.credits import verify
from gateway.credits.amount import to_decimal
from gateway.db.engine import Database
from gateway.pool.vault import Vault

WANTED = Wanted(days=10, calls_per_day=40)
VAULT = Vault(["master-key-of-the-history-tests-0123456789"])


@pytest.fixture(scope="module")
def filled(module_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    plain = make_url(module_database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    history.fill(module_database_url, WANTED, VAULT)
    with psycopg.connect(plain, autocommit=True) as connection:
        yield connection


def answer(url: str, path: str, query: Mapping[str, str] | None = None, **params: str) -> Any:
    """What a row of the admin API answers, as JSON."""

    async def ask() -> Any:
        database = Database(url)
        try:
            found = await invoke(
                lists.api_on(database), lists.ROWS["GET", path], lists.NOBODY, params, query or {}, {}
            )
            return json.loads(encode(found))
        finally:
            await database.close()

    return asyncio.run(ask())


def proof(url: str) -> verify.Proof:
    async def ask() -> verify.Proof:
        database = Database(url)
        try:
            async with database.transaction() as connection:
                return await verify.verify(connection)
        finally:
            await database.close()

    return asyncio.run(ask())


def values(connection: psycopg.Connection[Any], query: str) -> list[Any]:
    return [row[0] for row in connection.execute(query.encode())]


def test_the_ledger_proves(filled: psycopg.Connection[Any], module_database_url: str) -> None:
    found = proof(module_database_url)
    assert found.differences == ()
    assert found.checked.holds > 250
    assert found.checked.tasks > 50


def test_usage_is_what_was_settled(filled: psycopg.Connection[Any], module_database_url: str) -> None:
    found = answer(
        module_database_url, "/usage", {"from": "2020-01-01", "to": "2200-01-01", "by": "team,day"}
    )
    (settled,) = values(filled, "SELECT sum(settled)::bigint FROM holds WHERE state = 'settled'")
    (used,) = values(filled, "SELECT sum(credits)::bigint FROM usage_buckets")
    assert used == settled > 0
    assert Decimal(str(found["totals"]["credits"])) == to_decimal(settled)


def test_every_kind_of_row_is_there(filled: psycopg.Connection[Any]) -> None:
    states = Counter(values(filled, "SELECT state FROM holds"))
    assert set(states) == {"held", "settled", "released", "unknown"}
    flags = set(values(filled, "SELECT DISTINCT unnest(flags) FROM holds"))
    assert flags >= {"shadow_refused", "overrun", "odd_cost", "aged"}
    assert len(values(filled, "SELECT id FROM tasks WHERE ended_at IS NULL")) >= 10
    assert {402, 429, 401, 403} == set(values(filled, "SELECT DISTINCT status FROM refusals"))
    deliveries = set(values(filled, "SELECT DISTINCT state FROM alert_deliveries"))
    assert deliveries == {"pending", "delivered", "failed"}
    assert set(values(filled, "SELECT DISTINCT resolved_at IS NULL FROM alerts")) == {True, False}
    actors = set(values(filled, "SELECT DISTINCT split_part(actor, ':', 1) FROM audit_entries"))
    assert actors == {"admin-token", "oidc", "bootstrap"}


def test_no_enforced_quota_was_passed(filled: psycopg.Connection[Any]) -> None:
    running = """
        SELECT (c.settled + c.held)::float8 / q.limit_micro FROM quota_periods c
        JOIN quotas q ON q.id = c.quota_id AND q.enforce
        WHERE c.starts_at <= now() AND c.ends_at > now()
    """
    assert max(values(filled, running)) <= 1.0


def test_nothing_lies_ahead(filled: psycopg.Connection[Any]) -> None:
    ahead = """
        SELECT greatest(max(placed_at), max(ended_at), max(unknown_at)) <= now() FROM holds
        UNION ALL SELECT max(made_at) <= now() FROM audit_entries
        UNION ALL SELECT max(made_at) <= now() FROM ledger_entries
        UNION ALL SELECT max(raised_at) <= now() FROM alerts
    """
    assert set(values(filled, ahead)) == {True}


@pytest.mark.parametrize(
    "path", ["/requests", "/tasks", "/holds", "/alerts", "/audit", "/teams", "/upstream-keys"]
)
def test_the_admin_api_lists_it(filled: psycopg.Connection[Any], module_database_url: str, path: str) -> None:
    assert answer(module_database_url, path, {"limit": "200"})["data"]


@pytest.mark.parametrize("reason", ["quota_exceeded", "calls_in_flight", "invalid_key", "team_suspended"])
def test_a_refusal_is_explained(
    filled: psycopg.Connection[Any], module_database_url: str, reason: str
) -> None:
    ids = values(filled, f"SELECT request_id FROM refusals WHERE reason = '{reason}' ORDER BY at")
    told = json.dumps(answer(module_database_url, "/requests/{request_id}/explain", request_id=ids[0]))
    assert reason in told
    assert ("limit " in told) == (reason == "quota_exceeded")


def test_a_hold_is_explained(filled: psycopg.Connection[Any], module_database_url: str) -> None:
    ids = values(filled, "SELECT request_id FROM holds WHERE 'overrun' = ANY (flags)")
    told = json.dumps(answer(module_database_url, "/requests/{request_id}/explain", request_id=ids[0]))
    assert "overrun" in told
    assert "Executed" in told


def test_a_ledger_with_holds_is_left_alone_unless_told(
    filled: psycopg.Connection[Any], module_database_url: str
) -> None:
    before = values(filled, "SELECT count(*) FROM holds")
    with pytest.raises(SystemExit, match="--add"):
        history.fill(module_database_url, WANTED)
    assert values(filled, "SELECT count(*) FROM holds") == before
    history.fill(module_database_url, Wanted(days=4, calls_per_day=20, add=True))
    assert proof(module_database_url).ok
