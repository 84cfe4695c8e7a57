"""Every list of the admin API is read along an index: the plans say so, on rows enough to have a choice.

The planner may neither scan a whole table nor sort here unless it has to, so a list without an index for its order or
for its filter is found out however small the tables are. `python -m benchmarks lists` measures a million rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from benchmarks import lists, rows
from benchmarks.lists import Case
from benchmarks.plans import Node, Statement, recorded
from gateway.admin.api.binding import invoke
from gateway.db.engine import Database

SIZES = rows.Sizes(
    holds=4000, tasks=1200, keys=200, teams=20, audit=1000, refusals=200, admin_tokens=100
)  # fmt: skip
BIG = frozenset({"holds", "attempts", "ledger_entries", "tasks", "audit_entries", "refusals", "team_keys"})
# What a page is read along: a condition on the index, or the index of only such rows.
HOLDS: tuple[tuple[Mapping[str, str], str], ...] = (
    ({}, ""),
    ({"team": "team-none"}, "team_id ="),
    ({"key": "k000000150"}, "key_id ="),
    ({"model": "model-none"}, "model ="),
    ({"request_id": "req_77"}, "request_id ="),
    ({"state": "unknown"}, "state ="),
    ({"state": "held"}, "state ="),
    ({"state": "released"}, "_id_idx"),
    ({"state": "settled"}, ""),
    ({"from": "2026-01-01", "to": "2030-01-01"}, "id >="),
    ({"team": "team-0", "from": "2020-01-01T10:00:00Z"}, "team_id ="),
)
KEYS: tuple[tuple[Mapping[str, str], str], ...] = (
    ({}, "ix_team_keys_created_at_id"),
    ({"state": "active"}, "ix_team_keys_created_at_id"),
    ({"team": "team-none"}, "team_id ="),
)
TASKS: tuple[tuple[Mapping[str, str], str], ...] = (
    ({}, ""),
    ({"team": "team-none"}, "team_id ="),
    ({"status": "failed"}, "status ="),
    ({"ended": "false"}, "ix_tasks_open"),
    ({"ended": "true"}, ""),
)
AUDIT: tuple[tuple[Mapping[str, str], str], ...] = (
    ({}, ""),
    ({"team": "team-none"}, "team_id ="),
    ({"subject_type": "admin-token"}, "subject_type ="),
    ({"subject_type": "key", "subject_id": "k000000001"}, "subject_id ="),
    ({"actor": "cli:seldom"}, "actor ="),
    ({"action": "key.rotate"}, "action ="),
)
LISTS = [
    (path, narrow, along)
    for path, narrowed in (
        ("/holds", HOLDS),
        ("/requests", HOLDS),
        ("/tasks", TASKS),
        ("/audit", AUDIT),
        ("/keys", KEYS),
    )
    for narrow, along in narrowed
]
MIDDLES = {
    "/holds": "holds",
    "/requests": "holds",
    "/tasks": "tasks",
    "/audit": "audit",
    "/keys": "team_keys",
}
ONE_BY_ID = (
    Case("/tasks/{id}", {}, {"id": "task_7"}),
    Case("/requests/{request_id}/explain", {}, {"request_id": "req_7"}),
    Case("/requests/{request_id}/explain", {}, {"request_id": "refused_7"}),
    Case("/teams/{team}/keys", {}, {"team": "team-0"}),
)


@pytest.fixture(scope="module")
def filled(module_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    plain = make_url(module_database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        rows.fill(connection, SIZES)
        connection.execute(
            "INSERT INTO teams (id, slug, name) VALUES (gen_random_uuid(), 'team-none', 'A team without rows')"
        )
        yield connection


@pytest.mark.parametrize("middle", [False, True], ids=["first page", "a page in the middle"])
@pytest.mark.parametrize(("path", "narrow", "along"), LISTS)
def test_a_list_is_read_along_an_index(
    filled: psycopg.Connection[Any],
    module_database_url: str,
    path: str,
    narrow: Mapping[str, str],
    along: str,
    middle: bool,
) -> None:
    if middle and "request_id" in narrow:
        pytest.skip("a request id has few holds")
    after = {"limit": "200"} | ({"after": lists.cursors(filled)[MIDDLES[path]]} if middle else {})
    statements = asked(module_database_url, Case(path, {**narrow, **after}))
    few = "request_id" in narrow  # whose holds are sorted
    nodes = [node for statement in statements for node in plan(statement, filled, sorting=few)]
    assert not scanned(nodes)
    sorts = [node for node in nodes if node["Node Type"] in ("Sort", "Incremental Sort")]
    # The sends of one page are sorted; no list is.
    assert few or all(_small(node) for node in sorts), sorts
    conditions = [f"{node.get('Index Name')} {node.get('Index Cond', '')}" for node in nodes]
    assert any(along in condition for condition in conditions), conditions


@pytest.mark.parametrize("case", ONE_BY_ID, ids=lambda case: case.name)
def test_one_thing_is_found_by_an_index(
    filled: psycopg.Connection[Any], module_database_url: str, case: Case
) -> None:
    nodes = [node for one in asked(module_database_url, case) for node in plan(one, filled, sorting=True)]
    assert nodes
    assert not scanned(nodes)


def asked(url: str, case: Case) -> list[Statement]:
    """What a call of the admin API asks Postgres."""

    async def ask() -> list[Statement]:
        database = Database(url)
        try:
            with recorded(database) as found:
                row = lists.ROWS["GET", case.path]
                await invoke(lists.api_on(database), row, lists.NOBODY, case.params, case.query, {})
            return found
        finally:
            await database.close()

    return asyncio.run(ask())


def plan(statement: Statement, connection: psycopg.Connection[Any], *, sorting: bool) -> list[Node]:
    off = ["enable_seqscan", "enable_bitmapscan", "enable_hashjoin"]
    return statement.plan(connection, off if sorting else [*off, "enable_sort"])


def scanned(nodes: list[Node]) -> set[str]:
    """The big tables that are read as a whole; partitions by the name of what they are a part of."""
    names = {str(node["Relation Name"]) for node in nodes if node["Node Type"].endswith("Seq Scan")}
    return {big for big in BIG for name in names if name == big or name.startswith(f"{big}_")}


def _small(sort: Node) -> bool:
    return any("attempts" in key or "number" in key for key in sort["Sort Key"])
