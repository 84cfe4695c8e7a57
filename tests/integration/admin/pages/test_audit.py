"""The page of the audit, and the pages of admin tokens."""

from __future__ import annotations

import csv
import io
import itertools

from tests.integration.admin.pages.conftest import Dashboard, text_of

_NUMBERS = itertools.count()
HOSTILE = "<b onclick=x>'\""


async def changed_team(dashboard: Dashboard) -> dict[str, str]:
    team: dict[str, str] = await dashboard.api(
        "POST", "/teams", {"name": f"Audited {next(_NUMBERS)}", "quota": {"period": "month", "limit": 10}}
    )
    await dashboard.api("PATCH", f"/teams/{team['id']}", {"cost_center": HOSTILE})
    await dashboard.api("PUT", f"/teams/{team['id']}/quotas/month", {"limit": 20})
    return team


async def test_details_are_readable(dashboard: Dashboard) -> None:
    team = await changed_team(dashboard)
    text = await dashboard.page("/audit", team=team["slug"])
    assert "limit 10 → 20" in text
    assert f"cost_center – → {HOSTILE}" in text
    assert "{" not in text
    assert HOSTILE not in await dashboard.source("/audit", team=team["slug"])
    assert f'href="/admin/teams/{team["id"]}"' in await dashboard.source("/audit", team=team["slug"])


async def test_filters_narrow(dashboard: Dashboard) -> None:
    team = await changed_team(dashboard)
    rows = list(
        csv.DictReader(io.StringIO(await dashboard.source("/audit", team=team["slug"], format="csv")))
    )
    assert [row["action"] for row in rows] == ["quota.set", "team.update", "quota.set", "team.create"]
    only = await dashboard.page("/audit", subject_type="team", subject_id=team["id"], action="team.update")
    assert "cost_center" in only
    assert "limit" not in only
    none = await dashboard.page("/audit", actor="nobody")
    assert "There is no such entry" in none
    assert "All entries" in none


async def test_a_wrong_filter_is_said_beside_it(dashboard: Dashboard) -> None:
    text = await dashboard.page("/audit", 400, subject_id="x")
    assert "needs subject_type beside it" in text
    missing = await dashboard.source("/audit", 400, team=HOSTILE)
    assert "There is no team" in missing
    assert HOSTILE not in missing


async def test_a_token_acts_under_its_name(dashboard: Dashboard) -> None:
    issued = await dashboard.site.token("admin", "the night shift")
    headers = {"authorization": f"Bearer {issued.secret}"}
    name = f"By token {next(_NUMBERS)}"
    await dashboard.site.browser().post(
        "/admin/api/teams", json={"name": name, "unlimited": True}, headers=headers
    )
    assert "the night shift team.create" in await dashboard.page("/audit", action="team.create")


async def test_a_token_is_issued_once_shown_and_revoked_by_name(dashboard: Dashboard) -> None:
    answer = await dashboard.post("/access", name=HOSTILE, role="viewer")
    assert answer.status_code == 200
    assert HOSTILE not in answer.text
    (token,) = [
        one for one in (await dashboard.api("GET", "/admin-tokens"))["data"] if one["name"] == HOSTILE
    ]
    assert f"…{token['last4']}" in await dashboard.page("/access")
    assert "data-copy" not in await dashboard.source("/access")
    path = f"/access/{token['id']}/revoke"
    assert (await dashboard.post(path, name="else")).status_code == 400
    assert await dashboard.done(path, name=HOSTILE) == "/admin/access?done=token-revoked"
    rows = list(csv.DictReader(io.StringIO(await dashboard.source("/access", format="csv"))))
    assert [bool(row["revoked_at"]) for row in rows if row["id"] == token["id"]] == [True]
    changes = await dashboard.api("GET", "/audit", subject_type="admin-token", subject_id=token["id"])
    assert [entry["action"] for entry in changes["data"]] == ["admin-token.revoke", "admin-token.issue"]


async def test_a_wrong_token_is_shown_again(dashboard: Dashboard) -> None:
    answer = await dashboard.post("/access", name="", role="king")
    assert answer.status_code == 400
    assert "must be one of admin, viewer" in text_of(answer.text)
    assert "required" in text_of(answer.text)


async def test_a_viewer_issues_and_revokes_nothing(dashboard: Dashboard) -> None:
    token = (await dashboard.site.token("viewer", "stays")).token
    source = await dashboard.source("/access")
    assert "/revoke" not in source
    assert (
        await dashboard.viewer.post("/admin/access", data={"name": "x", "role": "admin"})
    ).status_code == 403
    revoked = await dashboard.viewer.post(f"/admin/access/{token.id}/revoke", data={"name": "stays"})
    assert revoked.status_code == 403
    await dashboard.page(f"/access/{token.id}/revoke", 403)
