"""Teams and their quotas over the admin API."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import select, text

from gateway.access import teams
from gateway.access.teams import NewTeam
from gateway.credits import quotas
from gateway.credits.quotas import Owner
from gateway.db.tables import audit_entries
from gateway.db.tables import teams as teams_table
from tests.integration.admin.conftest import Admin

JSON = {"content-type": "application/json"}


async def test_a_team_is_made_with_its_quota(admin: Admin) -> None:
    body = {
        "name": "  Growth Ünit ",
        "time_zone": "Asia/Kathmandu",
        "cost_center": "4711",
        "allowed_models": ["a", "b", "a"],
        "requests_per_minute": 60,
        "max_in_flight": 5,
        "quota": {"period": "month", "limit": 12.5},
    }
    answer = await admin.call("POST", "/teams", body)
    team = answer.json()
    assert answer.status_code == 201
    [quota] = team.pop("quotas")
    assert (quota["scope"], quota["period"], quota["limit"], quota["enforce"]) == (
        "team",
        "month",
        12.5,
        True,
    )
    assert team.pop("created_at").endswith("Z")
    ident = team.pop("id")
    assert team == {
        "slug": "growth-unit",
        "name": "Growth Ünit",
        "state": "active",
        "time_zone": "Asia/Kathmandu",
        "cost_center": "4711",
        "allowed_models": ["a", "b"],
        "requests_per_minute": 60,
        "max_in_flight": 5,
        "unlimited": False,
        "suspended_at": None,
    }
    assert await admin.ok("GET", "/teams/growth-unit") == await admin.ok("GET", f"/teams/{ident}")
    actions = [entry["action"] for entry in await admin.audit(team=ident)]
    assert actions == ["quota.set", "team.create"]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("0.1", "0.1"),
        ("999999999999.999999", "999999999999.999999"),
        ("123456789012.123456", "123456789012.123456"),
        ("0.0000005", "0.000001"),
        ("1e3", "1000"),
        ("0", "0"),
        ("1e-99999999", "0"),
    ],
)
async def test_limits_are_exact_both_ways(admin: Admin, sent: str, stored: str) -> None:
    raw = f'{{"name": "Exact {sent}", "quota": {{"period": "total", "limit": {sent}}}}}'
    answer = await admin.http.post("/admin/api/teams", content=raw, headers=JSON)
    assert answer.status_code == 201, answer.text
    assert f'"limit":{stored},' in answer.text


@pytest.mark.parametrize("limit", ["-1", "1e13", "1e400", "1e-99999999999999999999", '"5"', "true", "null"])
async def test_what_is_no_amount_is_refused(admin: Admin, limit: str) -> None:
    raw = f'{{"name": "No", "quota": {{"period": "total", "limit": {limit}}}}}'
    answer = await admin.http.post("/admin/api/teams", content=raw, headers=JSON)
    assert answer.status_code == 400


async def test_every_wrong_field_is_named_at_once(admin: Admin) -> None:
    body = {
        "nme": "x",
        "slug": "No Slug",
        "time_zone": "Europe/Berln",
        "allowed_models": [],
        "requests_per_minute": 0,
        "max_in_flight": 1.5,
        "unlimited": "yes",
        "quota": {"period": "year", "limitt": 3},
    }
    status, reason, message = await admin.refused("POST", "/teams", body)
    assert (status, reason) == (400, "invalid_fields")
    assert message.split("; ") == [
        "name: required",
        "slug: must be at most 63 lower-case letters, digits and single hyphens between them",
        "time_zone: must be an IANA time zone such as Europe/Berlin, did you mean Europe/Berlin?",
        "allowed_models: must be a list of 1 to 200 model names, or null for every model",
        "requests_per_minute: must be a whole number from 1 to 1000000",
        "max_in_flight: must be a whole number from 1 to 1000000",
        "unlimited: must be true or false",
        "quota.period: must be one of day, week, month, total",
        "quota.limit: required",
        "quota.limitt: unknown field, did you mean limit?",
        "nme: unknown field, did you mean name?",
    ]


@pytest.mark.parametrize(
    "body", [{"name": "A"}, {"name": "A", "unlimited": False}, {"name": "A", "quota": None}]
)
async def test_a_team_needs_a_quota_or_to_be_unlimited(admin: Admin, body: object) -> None:
    status, _, message = await admin.refused("POST", "/teams", body)
    assert status == 400
    assert "quota {period, limit}" in message
    assert "unlimited: true" in message


async def test_quota_and_unlimited_exclude_each_other(admin: Admin) -> None:
    body = {"name": "A", "unlimited": True, "quota": {"period": "day", "limit": 1}}
    status, _, message = await admin.refused("POST", "/teams", body)
    assert (status, message) == (400, "quota: must not be given together with unlimited: true")


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\u0000b", "a\nb", 7, None])
async def test_names_are_visible_text(admin: Admin, name: object) -> None:
    status, _, message = await admin.refused("POST", "/teams", {"name": name, "unlimited": True})
    assert status == 400
    assert message.startswith("name: ")


@pytest.mark.parametrize(
    "slug", ["-a", "a-", "a--b", "A", "a_b", "x" * 64, "", "01a20317-bcf1-7375-9a5a-cbeea84acd86", "a" * 32]
)
async def test_slugs_have_a_shape_and_are_no_ids(admin: Admin, slug: str) -> None:
    status, _, message = await admin.refused("POST", "/teams", {"name": "A", "unlimited": True, "slug": slug})
    assert status == 400
    assert message.startswith("slug: must")


async def test_a_taken_slug_comes_with_one_that_is_free(admin: Admin) -> None:
    for slug in (None, "taken-2"):
        await admin.team("Taken", **({"slug": slug} if slug else {}))
    status, reason, message = await admin.refused("POST", "/teams", {"name": "täken", "unlimited": True})
    assert (status, reason) == (409, "slug_taken")
    assert message == "slug: 'taken' belongs to another team; 'taken-3' is free"
    other = await admin.team("Other")
    status, reason, _ = await admin.refused("PATCH", f"/teams/{other['id']}", {"slug": "taken"})
    assert (status, reason) == (409, "slug_taken")
    assert (await admin.ok("GET", "/teams/other"))["id"] == other["id"], "nothing of it was kept"


async def test_one_of_many_at_once_gets_the_slug(admin: Admin) -> None:
    body = {"name": "Racing", "unlimited": True}
    answers = await asyncio.gather(*(admin.call("POST", "/teams", body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


async def test_only_what_is_sent_changes(admin: Admin) -> None:
    await admin.team("Changing", allowed_models=["a"], max_in_flight=3)
    changed = {"allowed_models": None, "name": "Changed", "time_zone": "Europe/Berlin"}
    team = await admin.ok("PATCH", "/teams/changing", changed)
    assert (team["allowed_models"], team["name"], team["max_in_flight"]) == (None, "Changed", 3)
    [entry, _] = await admin.audit(subject_type="team", subject_id=team["id"])
    assert entry["action"] == "team.update"
    assert entry["detail"] == {
        "allowed_models": {"from": ["a"], "to": None},
        "name": {"from": "Changing", "to": "Changed"},
        "time_zone": {"from": "UTC", "to": "Europe/Berlin"},
    }
    assert await admin.ok("PATCH", "/teams/changing", changed) == team
    assert len(await admin.audit(subject_type="team", subject_id=team["id"])) == 2, "no change, no entry"
    assert ("team", team["id"]) in admin.heard.news


async def test_null_is_refused_where_nothing_makes_no_sense(admin: Admin) -> None:
    await admin.team("Nulls")
    body = dict.fromkeys(("name", "slug", "time_zone", "unlimited"))
    status, _, message = await admin.refused("PATCH", "/teams/nulls", body)
    assert status == 400
    assert [line.partition(":")[0] for line in message.split("; ")] == list(body)


async def test_suspend_and_resume_may_be_repeated(admin: Admin) -> None:
    team = await admin.team("Halting")
    first = await admin.ok("POST", "/teams/halting/suspend")
    assert first["state"] == "suspended"
    assert await admin.ok("POST", "/teams/halting/suspend", {}) == first
    assert (await admin.ok("POST", "/teams/halting/resume"))["state"] == "active"
    assert (await admin.ok("POST", "/teams/halting/resume"))["suspended_at"] is None
    actions = [entry["action"] for entry in await admin.audit(subject_type="team", subject_id=team["id"])]
    assert actions == ["team.resume", "team.suspend", "team.create"]
    status, _, message = await admin.refused("POST", "/teams/halting/suspend", {"why": "x"})
    assert (status, message) == (400, "why: unknown field")


@pytest.mark.parametrize("ref", ["nobody", "00000000-0000-7000-8000-000000000000", "a%00b", "A B", "x" * 300])
async def test_unknown_teams_are_404(admin: Admin, ref: str) -> None:
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("POST", "/suspend"),
        ("GET", "/keys"),
        ("GET", "/quotas"),
    ):
        status, _, _ = await admin.refused(method, f"/teams/{ref}{path}", {} if method != "GET" else None)
        assert status == 404


async def test_a_quota_is_set_changed_and_read(admin: Admin) -> None:
    team = await admin.team("Rationed")
    made = await admin.ok("PUT", "/teams/rationed/quotas/day", {"limit": 5})
    assert (made["limit"], made["enforce"]) == (5, True)
    changed = await admin.ok("PUT", "/teams/rationed/quotas/day", {"limit": 7.25, "enforce": False})
    assert (changed["limit"], changed["enforce"]) == (7.25, False)
    assert changed["created_at"] == made["created_at"]
    await admin.ok("PUT", "/teams/rationed/quotas/total", {"limit": 100})
    listed = await admin.ok("GET", "/teams/rationed/quotas")
    assert [quota["period"] for quota in listed["data"]] == ["day", "total"]
    assert (listed["has_more"], listed["next"]) == (False, None)
    assert await admin.ok("GET", "/teams/rationed/quotas/day") == changed
    assert (await admin.ok("DELETE", "/teams/rationed/quotas/day"))["limit"] == 7.25
    assert await admin.refused("DELETE", "/teams/rationed/quotas/day") == (
        404,
        "quota_not_found",
        "This team has no day quota.",
    )
    entries = await admin.audit(subject_type="team", subject_id=team["id"])
    assert [entry["action"] for entry in entries] == ["quota.remove"] + ["quota.set"] * 3 + ["team.create"]
    assert entries[2]["detail"] == {
        "period": "day",
        "limit": "7.25",
        "enforce": False,
        "from": {"limit": "5", "enforce": True},
    }
    status, _, message = await admin.refused("PUT", "/teams/rationed/quotas/year", {"limit": 1})
    assert (status, message) == (400, "period: must be one of day, week, month, total")


async def test_the_last_enforced_quota_stays(admin: Admin) -> None:
    await admin.team("Bounded", quota={"period": "month", "limit": 10})
    await admin.ok("PUT", "/teams/bounded/quotas/day", {"limit": 1, "enforce": False})
    for method, path, body in (
        ("DELETE", "/teams/bounded/quotas/month", None),
        ("PUT", "/teams/bounded/quotas/month", {"limit": 10, "enforce": False}),
    ):
        status, reason, message = await admin.refused(method, path, body)
        assert (status, reason) == (409, "last_enforced_quota")
        assert "unlimited: true" in message
    month = await admin.ok("GET", "/teams/bounded/quotas/month")
    assert month["enforce"], "the refused change left nothing behind"

    await admin.ok("PATCH", "/teams/bounded", {"unlimited": True})
    await admin.ok("DELETE", "/teams/bounded/quotas/month")
    status, reason, _ = await admin.refused("PATCH", "/teams/bounded", {"unlimited": False})
    assert (status, reason) == (409, "last_enforced_quota")
    await admin.ok("PUT", "/teams/bounded/quotas/week", {"limit": 3})
    assert (await admin.ok("PATCH", "/teams/bounded", {"unlimited": False}))["unlimited"] is False


async def test_two_removals_at_once_leave_one_quota(admin: Admin) -> None:
    team = await admin.team("Contended", quota={"period": "month", "limit": 10})
    await admin.ok("PUT", "/teams/contended/quotas/day", {"limit": 1})
    async with admin.database.transaction() as first:
        await quotas.remove(first, "test", Owner(UUID(team["id"])), "month")
        second = asyncio.create_task(admin.call("DELETE", "/teams/contended/quotas/day"))
        await _until_someone_waits_for_a_lock(admin)
    assert (await second).status_code == 409
    assert [quota["period"] for quota in (await admin.ok("GET", "/teams/contended"))["quotas"]] == ["day"]


async def _until_someone_waits_for_a_lock(admin: Admin) -> None:
    async with admin.database.autocommit() as connection, asyncio.timeout(5):
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while not (await connection.execute(waiting)).scalar_one():
            await asyncio.sleep(0.01)


async def test_a_key_has_quotas_of_its_own(admin: Admin) -> None:
    await admin.team("Keyed", quota={"period": "month", "limit": 10})
    key = await admin.key("keyed")
    path = f"/keys/{key['id']}/quotas"
    made = await admin.ok("PUT", f"{path}/day", {"limit": 1})
    assert made["scope"] == "key"
    assert [quota["period"] for quota in (await admin.ok("GET", path))["data"]] == ["day"]
    team_quotas = (await admin.ok("GET", "/teams/keyed/quotas"))["data"]
    assert [quota["scope"] for quota in team_quotas] == ["team"]
    await admin.ok("DELETE", f"{path}/day")
    assert await admin.refused("GET", f"{path}/day") == (404, "quota_not_found", "This key has no day quota.")
    [entry, *_] = await admin.audit(subject_type="key", subject_id=key["id"])
    assert entry["action"] == "quota.remove"


async def test_a_change_and_its_audit_entry_land_together_or_not_at_all(admin: Admin) -> None:
    made = []

    async def create_and_fail() -> None:
        async with admin.database.transaction() as connection:
            made.append(await teams.create(connection, "test", NewTeam(name="Never", unlimited=True)))
            raise KeyError

    with pytest.raises(KeyError):
        await create_and_fail()
    [team] = made
    async with admin.database.autocommit() as connection:
        found = select(teams_table.c.id).where(teams_table.c.id == team.id)
        entries = select(audit_entries.c.id).where(audit_entries.c.subject_id == str(team.id))
        assert (await connection.execute(found)).all() == []
        assert (await connection.execute(entries)).all() == []


async def test_a_change_whose_audit_entry_cannot_be_written_is_undone(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await admin.team("Unaudited")

    async def broken(*_: object, **__: object) -> None:
        raise ConnectionError("the audit table is gone")

    monkeypatch.setattr("gateway.db.audit.write", broken)
    for method, path, body in (
        ("PATCH", "/teams/unaudited", {"name": "Changed"}),
        ("PUT", "/teams/unaudited/quotas/day", {"limit": 1}),
        ("POST", "/teams/unaudited/keys", {"name": "k"}),
        ("POST", "/upstream-keys", {"label": "unaudited", "secret": "sk-unaudited-1"}),
        ("POST", "/admin-tokens", {"name": "unaudited", "role": "admin"}),
    ):
        assert (await admin.refused(method, path, body))[0] == 503
    monkeypatch.undo()
    team = await admin.ok("GET", "/teams/unaudited")
    assert (team["name"], team["quotas"]) == ("Unaudited", [])
    assert (await admin.ok("GET", "/teams/unaudited/keys"))["data"] == []
    assert (await admin.refused("GET", "/upstream-keys/unaudited"))[0] == 404
    names = [token["name"] for token in (await admin.ok("GET", "/admin-tokens", limit="200"))["data"]]
    assert "unaudited" not in names
