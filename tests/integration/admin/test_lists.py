"""Pages, filters and cursors of every list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from gateway.db.tables import tasks
from gateway.ids import uuid7
from gateway.tasks import listing
from tests.integration.admin.conftest import Admin

LISTS = ("/teams", "/teams/paged/keys", "/upstream-keys", "/tasks", "/audit", "/admin-tokens")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def paged(admin: Admin) -> Admin:
    """Seven of everything that has a list, made once a module."""
    if (await admin.call("GET", "/teams/paged")).is_success:
        return admin
    for number in range(6):
        await admin.team(f"Paged {number}")
        await admin.ok("POST", "/admin-tokens", {"name": f"t{number}", "role": "viewer"})
    await admin.team("Paged")
    keys = [await admin.key("paged", name=f"k{number}") for number in range(7)]
    upstream = [
        await admin.ok("POST", "/upstream-keys", {"label": f"u{number}", "secret": f"sk-paged-{number}"})
        for number in range(7)
    ]
    async with admin.database.transaction() as connection:
        for number in range(7):
            ended = number % 2 == 0
            await connection.execute(
                tasks.insert().values(
                    id=f"task_{number}",
                    team_id=UUID(keys[0]["team_id"]),
                    key_id=keys[0]["id"],
                    hold_id=uuid7(),
                    upstream_key_id=UUID(upstream[0]["id"]),
                    model="m",
                    operation="images.generations",
                    status="completed" if ended else "processing",
                    body=b"{}",
                    credits_cost=1_500_000 if ended else None,
                    created_at=NOON + timedelta(seconds=number // 2),  # pairs of one instant
                    ended_at=NOON if ended else None,
                )
            )
    return admin


async def _all(admin: Admin, path: str, limit: int, **narrow: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = await admin.ok("GET", path, limit=str(limit), **narrow)
    while page["has_more"]:
        assert len(page["data"]) == limit
        found += page["data"]
        page = await admin.ok("GET", path, limit=str(limit), after=page["next"], **narrow)
    assert page["next"] is None
    found += page["data"]
    return found


@pytest.mark.parametrize("path", LISTS)
async def test_pages_hold_everything_once_newest_first(paged: Admin, path: str) -> None:
    whole = (await paged.ok("GET", path, limit="200"))["data"]
    moments = [row.get("created_at", row.get("made_at")) for row in whole]
    assert len(whole) >= 7
    assert moments == sorted(moments, reverse=True)
    for limit in (1, 3, len(whole)):
        assert await _all(paged, path, limit) == whole


@pytest.mark.parametrize("path", LISTS)
async def test_what_is_added_meanwhile_moves_no_page(paged: Admin, path: str) -> None:
    first = await paged.ok("GET", path, limit="2")
    second = await paged.ok("GET", path, limit="2", after=first["next"])
    team = await paged.team(f"Meanwhile {path.replace('/', ' ')}")
    await paged.key("paged")
    await paged.ok("POST", "/admin-tokens", {"name": "meanwhile", "role": "viewer"})
    assert team["slug"].startswith("meanwhile")
    assert (await paged.ok("GET", path, limit="2", after=first["next"])) == second


@pytest.mark.parametrize("path", LISTS)
async def test_only_a_cursor_of_this_list_is_taken(paged: Admin, path: str) -> None:
    foreign = (await paged.ok("GET", "/teams" if path != "/teams" else "/audit", limit="1"))["next"]
    own = (await paged.ok("GET", path, limit="1"))["next"]
    for cursor in (foreign, "nonsense", own[:-4], own + "AA", "", "x" * 2000, "\u0000"):
        status, reason, message = await paged.refused("GET", path, after=cursor)
        assert (status, reason, message[:7]) == (400, "invalid_fields", "after: "), cursor


async def test_a_wrong_cursor_is_named_with_everything_else(paged: Admin) -> None:
    status, reason, message = await paged.refused("GET", "/teams", limit="0", bogus="1", after="xx")
    assert (status, reason) == (400, "invalid_fields")
    assert [problem.partition(":")[0] for problem in message.split("; ")] == ["limit", "after", "bogus"]


@pytest.mark.parametrize("path", LISTS)
async def test_the_limit_has_bounds_and_names_are_known(paged: Admin, path: str) -> None:
    for limit in ("0", "201", "-1", "1.5", "many", "", "٣"):
        status, _, message = await paged.refused("GET", path, limit=limit)
        assert (status, message) == (400, "limit: must be a whole number from 1 to 200")
    status, _, message = await paged.refused("GET", path, limt="5")
    assert (status, message) == (400, "limt: unknown field, did you mean limit?")
    double = await paged.http.get(f"/admin/api{path}?limit=5&limit=6")
    assert double.status_code == 400


async def test_rows_without_a_query_take_none(paged: Admin) -> None:
    status, _, message = await paged.refused("GET", "/teams/paged", limit="5")
    assert (status, message) == (400, "limit: unknown field")


async def test_tasks_are_narrowed(paged: Admin) -> None:
    async def ids(**narrow: str) -> list[str]:
        return [task["id"] for task in await _all(paged, "/tasks", 2, **narrow)]

    everything = [f"task_{number}" for number in (6, 5, 4, 3, 2, 1, 0)]
    assert await ids() == everything
    assert await ids(team="paged") == everything
    assert await ids(team="paged-1") == []
    assert await ids(ended="true") == await ids(status="completed") == everything[::2]
    assert await ids(ended="false", team="paged") == everything[1::2]
    assert (await paged.refused("GET", "/tasks", team="nobody"))[0] == 404
    assert (await paged.refused("GET", "/tasks", ended="perhaps"))[0] == 400


async def test_one_task_is_shown(paged: Admin) -> None:
    task = await paged.ok("GET", "/tasks/task_4")
    assert (task["team"], task["status"], task["credits_cost"]) == ("paged", "completed", 1.5)
    assert task["ended_at"] == "2026-03-01T12:00:00Z"
    assert "body" not in task
    for ident in ("task_99", "a%00b", "a.b", "x" * 129):
        assert (await paged.refused("GET", f"/tasks/{ident}"))[0] == 404


async def test_a_team_finds_its_own_tasks_only(paged: Admin) -> None:
    mine = UUID((await paged.ok("GET", "/teams/paged"))["id"])
    async with paged.database.autocommit() as connection:
        assert (await listing.find(connection, "task_1", mine)).id == "task_1"
        with pytest.raises(Exception, match="task_not_found"):
            await listing.find(connection, "task_1", uuid7())


async def test_audit_entries_are_narrowed(paged: Admin) -> None:
    team = await paged.ok("GET", "/teams/paged")
    of_team = await _all(paged, "/audit", 3, team="paged")
    assert {entry["team_id"] for entry in of_team} == {team["id"]}
    assert {entry["action"] for entry in of_team} == {"team.create", "key.issue"}
    of_tokens = await _all(paged, "/audit", 3, subject_type="admin-token")
    assert {entry["subject_type"] for entry in of_tokens} == {"admin-token"}
    [entry] = await _all(paged, "/audit", 3, subject_type="team", subject_id=team["id"])
    assert entry["detail"]["slug"] == "paged"
    status, _, message = await paged.refused("GET", "/audit", subject_id=team["id"])
    assert (status, message) == (400, "subject_id: needs subject_type beside it")
