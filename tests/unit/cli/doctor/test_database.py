"""What the doctor says of Postgres."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.cli.doctor import database
from gateway.cli.doctor.database import Contents, Server
from tests.unit.cli.doctor.facts import settings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GOOD = Server(
    version=180002,
    standby=False,
    superuser=False,
    statement_timeout=2000,
    lock_timeout=1000,
    connections=97,
    revision="0013",
    now=NOW,
)


@pytest.mark.parametrize(
    ("changed", "state", "words"),
    [
        ({}, "ok", "Postgres 18"),
        ({"version": 130012}, "fail", "install Postgres 14"),
        ({"standby": True}, "fail", "the primary"),
        ({"superuser": True}, "warn", "a login of its own"),
        ({"connections": 9}, "warn", "raise max_connections"),
    ],
)
def test_the_server(changed: dict[str, Any], state: str, words: str) -> None:
    check = database.server(replace(GOOD, **changed), settings())[0]
    assert check.state == state
    assert words in check.found + check.advice


def test_time_outs_that_a_pooler_lost_fail() -> None:
    assert database.timeouts(GOOD, settings()).state == "ok"
    check = database.timeouts(replace(GOOD, lock_timeout=0), settings())
    assert (check.state, check.found) == ("fail", "lock_timeout is 0 ms instead of 1000")


@pytest.mark.parametrize(
    ("revision", "state"), [("0013", "ok"), (None, "fail"), ("0008", "fail"), ("9999", "warn")]
)
def test_the_schema(revision: str | None, state: str) -> None:
    check = database.migrations(revision, "0013", frozenset({"0008", "0013"}))
    assert check.state == state
    assert (check.advice == "run: pixapi-gateway db upgrade") == (state == "fail")


@pytest.mark.parametrize(
    ("found", "name", "state", "words"),
    [
        (Contents(), "append-only", "ok", ""),
        (Contents(unguarded=["ledger_entries"]), "append-only", "fail", "ledger verify"),
        (Contents(), "partitions", "ok", ""),
        (Contents(missing=["holds_2026_04"]), "partitions", "warn", "holds_2026_04"),
        (Contents(stray=["holds"]), "partitions", "warn", "nothing is lost"),
        (Contents(), "unknown holds", "ok", ""),
        (Contents(unknown_holds=2, oldest_unknown=NOW - timedelta(hours=5)), "unknown holds", "warn", "5 h"),
        (Contents(alerts=0), "alerts", "ok", ""),
        (Contents(alerts=3), "alerts", "warn", "3 open"),
    ],
)
def test_what_lies_in_it(found: Contents, name: str, state: str, words: str) -> None:
    (check,) = [check for check in database.contents(found, NOW) if check.name == name]
    assert check.state == state
    assert words in check.found + check.advice


def test_without_a_table_of_alerts_nothing_is_said_of_them() -> None:
    assert "alerts" not in [check.name for check in database.contents(Contents(), NOW)]
