"""Teams on the dashboard: forms that change what they say, are shown again when they are wrong, and ask for names."""

from __future__ import annotations

import csv
import io

import pytest

from tests.integration.admin.pages.conftest import Dashboard, text_of

HOSTILE = '"><script>alert(1)</script>'


async def test_a_team_is_made_and_audited_by_name(dashboard: Dashboard) -> None:
    where = await dashboard.done(
        "/teams/new",
        name=HOSTILE,
        slug="hostile",
        kind="limited",
        period="month",
        limit="1,000.5",
        time_zone="UTC",
    )
    assert where == "/admin/teams/hostile?done=team-created"
    source = await dashboard.source("/teams/hostile", done="team-created")
    assert HOSTILE not in source
    assert HOSTILE in text_of(source)
    assert "The team was created" in source
    team = await dashboard.api("GET", "/teams/hostile")
    assert team["quotas"][0]["limit"] == 1000.5
    *_, entry = (await dashboard.api("GET", "/audit", subject_type="team", subject_id=team["id"]))["data"]
    assert (entry["actor"], entry["action"]) == ("bootstrap", "team.create")
    assert "Last change: quota.set · bootstrap" in text_of(source)


async def test_a_wrong_form_is_shown_again_as_it_was_typed(dashboard: Dashboard) -> None:
    answer = await dashboard.post(
        "/teams/new", name="Kept", kind="limited", period="month", limit="many", time_zone="Mars/Base"
    )
    assert answer.status_code == 400
    text = text_of(answer.text)
    assert "must be a number of credits" in text
    assert 'value="Kept"' in answer.text
    assert 'value="many"' in answer.text
    assert answer.text.count('aria-invalid="true"') == 2
    await dashboard.page("/teams/kept", status=404)


async def test_quotas_are_set_in_place(dashboard: Dashboard) -> None:
    await dashboard.done(
        "/teams/new", name="Quotas", kind="limited", period="month", limit="10", time_zone="UTC"
    )
    done = await dashboard.done("/teams/quotas/quotas", period="day", limit="2.5", enforce="1")
    assert done == "/admin/teams/quotas?done=quota-set"
    assert "2.50 credits" in await dashboard.page("/teams/quotas")
    await dashboard.done("/teams/quotas/quotas", period="day", limit="3")
    found = {one["period"]: one for one in (await dashboard.api("GET", "/teams/quotas/quotas"))["data"]}
    assert (found["day"]["limit"], found["day"]["enforce"]) == (3, False)
    wrong = await dashboard.post("/teams/quotas/quotas", period="day", limit="-1")
    assert wrong.status_code == 400
    assert 'value="-1"' in wrong.text
    assert 'name="enforce" value="1"><label for="enforce-day"' in wrong.text, "what was not ticked stays so"
    assert 'value="/admin/teams/quotas"' in wrong.text, "language and theme lead back to the page"
    unnamed = await dashboard.post("/teams/quotas/quotas/remove", period="day")
    assert unnamed.status_code == 400
    await dashboard.done("/teams/quotas/quotas/remove", period="day", name="day")
    last = await dashboard.post("/teams/quotas/quotas/remove", period="month", name="month")
    assert last.status_code == 400
    assert "quota" in text_of(last.text)
    assert len((await dashboard.api("GET", "/teams/quotas/quotas"))["data"]) == 1


async def test_a_key_is_shown_once(dashboard: Dashboard) -> None:
    await dashboard.done("/teams/new", name="Keys", kind="unlimited", time_zone="UTC")
    answer = await dashboard.post("/teams/keys/keys", name="laptop")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert "/gateway/look" not in answer.text, "nothing leads away from what is shown once"
    [key] = (await dashboard.api("GET", "/teams/keys/keys"))["data"]
    assert f"{key['prefix']}_" in answer.text
    later = await dashboard.source("/teams/keys")
    assert f"{key['prefix']}_…{key['last4']}" in later
    secret = answer.text.partition('<code tabindex="0">')[2].partition("<")[0]
    assert secret.startswith(key["prefix"])
    assert secret not in later


async def test_suspending_asks_for_the_name(dashboard: Dashboard) -> None:
    await dashboard.done("/teams/new", name="Suspend me", kind="unlimited", time_zone="UTC")
    wrong = await dashboard.post("/teams/suspend-me/suspend", name="suspend")
    assert wrong.status_code == 400
    assert (await dashboard.api("GET", "/teams/suspend-me"))["state"] == "active"
    await dashboard.done("/teams/suspend-me/suspend", name="suspend-me")
    assert (await dashboard.api("GET", "/teams/suspend-me"))["state"] == "suspended"
    await dashboard.done("/teams/suspend-me/resume")
    assert (await dashboard.api("GET", "/teams/suspend-me"))["state"] == "active"


async def test_a_name_is_typed_as_it_is_read(dashboard: Dashboard) -> None:
    await dashboard.done("/teams/new", name="Spaces", kind="unlimited", time_zone="UTC")
    await dashboard.post("/teams/spaces/keys", name="a  b")
    [key] = (await dashboard.api("GET", "/teams/spaces/keys"))["data"]
    await dashboard.done(f"/keys/{key['id']}/revoke", name="a b")
    assert (await dashboard.api("GET", f"/keys/{key['id']}"))["state"] == "revoked"


async def test_settings_change(dashboard: Dashboard) -> None:
    await dashboard.done("/teams/new", name="Old", kind="unlimited", time_zone="UTC")
    done = await dashboard.done(
        "/teams/old",
        name="New",
        slug="new-name",
        time_zone="Asia/Shanghai",
        allowed_models="a b",
        unlimited="1",
    )
    assert done == "/admin/teams/new-name?done=team-updated"
    team = await dashboard.api("GET", "/teams/new-name")
    assert (team["name"], team["time_zone"], team["allowed_models"]) == ("New", "Asia/Shanghai", ["a", "b"])
    wrong = await dashboard.post(
        "/teams/new-name", name="New", slug="NO GOOD", time_zone="UTC", unlimited="1"
    )
    assert wrong.status_code == 400
    assert 'value="NO GOOD"' in wrong.text


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/teams/new", {"name": "x", "kind": "unlimited"}),
        ("/teams/any", {"name": "x"}),
        ("/teams/any/quotas", {"period": "day", "limit": "1"}),
        ("/teams/any/quotas/remove", {"period": "day"}),
        ("/teams/any/keys", {"name": "x"}),
        ("/teams/any/suspend", {"name": "any"}),
        ("/teams/any/resume", {}),
    ],
)
async def test_a_viewer_and_other_sites_change_nothing(
    dashboard: Dashboard, path: str, fields: dict[str, str]
) -> None:
    refused = await dashboard.viewer.post(f"/admin{path}", data=fields)
    assert refused.status_code == 403
    assert "viewer only reads" in text_of(refused.text)
    foreign = await dashboard.admin.post(
        f"/admin{path}",
        data=fields,
        headers={"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    )
    assert foreign.status_code == 403


async def test_the_list_as_a_file(dashboard: Dashboard) -> None:
    await dashboard.done("/teams/new", name="=cmd()", slug="formula", kind="unlimited", time_zone="UTC")
    answer = await dashboard.viewer.get("/admin/teams", params={"format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = {row["team"]: row for row in csv.DictReader(io.StringIO(answer.text))}
    assert rows["formula"]["name"] == "'=cmd()", "no spreadsheet takes it for a formula"
