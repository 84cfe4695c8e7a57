"""Every row of the admin API: refused without a token, refused to a viewer when it changes something."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.access import admin_tokens
from gateway.admin.api.openapi import PREFIX
from gateway.admin.api.route import AdminRoute
from gateway.admin.api.routes import ROUTES
from gateway.db import schema
from tests.integration.admin.conftest import BOOTSTRAP, PEPPERS, Admin

NOWHERE = {"{team}": "nowhere", "{id}": "nowhere", "{period}": "day"}


def _path(row: AdminRoute) -> str:
    path = PREFIX + row.path
    for name, value in NOWHERE.items():
        path = path.replace(name, value)
    return path


async def test_no_row_answers_without_a_token(admin: Admin) -> None:
    for row in ROUTES:
        answer = await admin.http.request(row.method, _path(row), headers={"authorization": ""})
        assert answer.status_code == 401, row
        assert answer.json()["error"]["reason"] == "invalid_admin_token"
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_viewer_reads_everything_and_changes_nothing(admin: Admin) -> None:
    for row in ROUTES:
        answer = await admin.http.request(row.method, _path(row), headers=admin.viewer, json={})
        if row.method == "GET":
            assert answer.status_code in (200, 404), (row, answer.text)
        else:
            assert answer.status_code == 403, (row, answer.text)
            assert answer.json()["error"]["type"] == "permission_error"


async def test_the_role_is_checked_before_anything_else_is_read(admin: Admin) -> None:
    answer = await admin.http.post("/admin/api/teams?x=1&x=2", headers=admin.viewer, content=b"{")
    assert answer.status_code == 403


def test_only_reading_rows_are_open_to_viewers() -> None:
    assert {row.role for row in ROUTES if row.method != "GET"} == {"admin"}
    assert {row.role for row in ROUTES if row.method == "GET"} == {"viewer"}


@pytest.mark.parametrize(
    "value",
    [
        "Basic " + BOOTSTRAP,
        "Bearer",
        "Bearer ",
        BOOTSTRAP,
        f"Bearer {BOOTSTRAP}x",
        f"Bearer {BOOTSTRAP[:-1]}",
        "Bearer pxa_0000000000_00000000000000000000000000000000000000",
        "Bearer ünïcode",
    ],
)
async def test_what_is_no_token_is_refused(admin: Admin, value: str) -> None:
    headers = [(b"authorization", value.encode("latin-1"))]
    answer = await admin.http.get("/admin/api/status", headers=headers)
    assert answer.status_code == 401


async def test_two_authorization_headers_are_refused(admin: Admin) -> None:
    request = admin.http.build_request("GET", "/admin/api/status")
    request.headers = type(request.headers)([("authorization", f"Bearer {BOOTSTRAP}")] * 2)
    assert (await admin.http.send(request)).status_code == 401


async def test_the_scheme_is_read_in_any_case(admin: Admin) -> None:
    answer = await admin.http.get("/admin/api/status", headers={"authorization": f"bearer {BOOTSTRAP}"})
    assert answer.status_code == 200


async def test_a_team_key_is_no_admin_token(admin: Admin) -> None:
    await admin.team("Key holders")
    key = await admin.key("key-holders")
    answer = await admin.http.get("/admin/api/status", headers={"authorization": f"Bearer {key['secret']}"})
    assert answer.status_code == 401


async def test_a_token_lives_from_issue_to_revoke(admin: Admin) -> None:
    token = await admin.ok("POST", "/admin-tokens", {"name": "ops", "role": "admin"})
    assert token["secret"].startswith("pxa_")
    assert token["secret"].endswith(token["last4"])
    headers = {"authorization": f"Bearer {token['secret']}"}
    made = await admin.http.post(
        "/admin/api/teams", json={"name": "By ops", "unlimited": True}, headers=headers
    )
    assert made.status_code == 201
    [entry] = await admin.audit(subject_type="team", subject_id=made.json()["id"])
    assert entry["actor"] == f"admin-token:{token['id']}"

    path = f"/admin-tokens/{token['id']}/revoke"
    revoked = (await admin.http.post(f"/admin/api{path}", headers=headers)).json()
    assert revoked["revoked_at"] is not None, "a token may revoke itself"
    assert (await admin.http.get("/admin/api/status", headers=headers)).status_code == 401
    assert (await admin.ok("POST", path)) == revoked, "revoking twice changes nothing"
    entries = await admin.audit(subject_type="admin-token", subject_id=token["id"])
    assert [entry["action"] for entry in entries] == ["admin-token.revoke", "admin-token.issue"]


async def test_unknown_tokens_cannot_be_revoked(admin: Admin) -> None:
    for ident in ("nonsense", "00000000-0000-7000-8000-000000000000"):
        status, reason, _ = await admin.refused("POST", f"/admin-tokens/{ident}/revoke")
        assert (status, reason) == (404, "admin_token_not_found")


async def test_use_is_noted_at_most_once_a_minute(admin: Admin) -> None:
    async with admin.database.transaction() as connection:
        issued = await admin_tokens.issue(connection, "test", PEPPERS, "noted", "viewer")
    seen = []
    for _ in range(2):
        await admin.tokens.authenticate([f"Bearer {issued.secret}"])
        listed = (await admin.ok("GET", "/admin-tokens", limit="200"))["data"]
        [token] = [token for token in listed if token["id"] == str(issued.token.id)]
        seen.append(token["last_used_at"])
    assert seen[0] is not None
    assert seen[0] == seen[1]
    assert abs(datetime.fromisoformat(seen[0]) - datetime.now(UTC)).total_seconds() < 60
    assert "secret" not in token


async def test_other_methods_are_named(admin: Admin) -> None:
    answer = await admin.call("PUT", "/teams")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_head_is_a_get_without_its_body(admin: Admin) -> None:
    head, get = await admin.call("HEAD", "/status"), await admin.call("GET", "/status")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"]
    assert get.headers["cache-control"] == "no-store"


async def test_the_status_counts_what_there_is(admin: Admin) -> None:
    before = await admin.ok("GET", "/status")
    assert before["database"] == {"ok": True, "revision": schema.head()}
    await admin.team("Counted")
    key = await admin.key("counted")
    await admin.ok("POST", "/upstream-keys", {"label": "counted", "secret": "sk-counted-000001"})
    await admin.ok("POST", "/upstream-keys/counted/drain")
    after = await admin.ok("GET", "/status")
    assert after["counts"]["teams"] == before["counts"]["teams"] + 1
    assert after["counts"]["keys"] == before["counts"]["keys"] + 1
    assert after["counts"]["upstream_keys"]["draining"] == 1
    assert [after["counts"][name] for name in ("open_tasks", "open_holds", "unknown_holds")] == [0, 0, 0]
    await admin.ok("POST", f"/keys/{key['id']}/revoke")
    assert (await admin.ok("GET", "/status"))["counts"]["keys"] == before["counts"]["keys"]
