"""Team keys over the admin API."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from gateway.access.key_format import parse
from gateway.db.tables import team_keys
from tests.integration.admin.conftest import PEPPERS, Admin


async def test_a_key_is_shown_once_and_stored_as_its_digest(admin: Admin) -> None:
    team = await admin.team("Issuing")
    body = {
        "name": "ci",
        "expires_at": "2999-01-01T00:00:00+02:00",
        "allowed_models": ["a"],
        "allowed_addresses": ["10.1.2.3/8", "::ffff:192.0.2.1", "2001:DB8::0:1", "192.0.2.1"],
        "requests_per_minute": 5,
        "max_in_flight": 1,
    }
    answer = await admin.call("POST", "/teams/issuing/keys", body)
    assert answer.status_code == 201
    issued = answer.json()
    secret = issued.pop("secret")
    parsed = parse(secret, "pxg")
    assert parsed is not None
    assert issued["id"] == parsed.public_id
    assert issued["prefix"] == f"pxg_{parsed.public_id}"
    assert secret.endswith(issued["last4"])
    assert (issued["state"], issued["team"], issued["team_id"]) == ("active", "issuing", team["id"])
    assert issued["expires_at"] == "2998-12-31T22:00:00Z"
    assert issued["allowed_addresses"] == ["10.0.0.0/8", "192.0.2.1", "2001:db8::1"]
    assert await admin.ok("GET", f"/keys/{issued['id']}") == issued
    assert (await admin.ok("GET", "/teams/issuing/keys"))["data"] == [issued]
    async with admin.database.autocommit() as connection:
        query = select(team_keys.c.digest).where(team_keys.c.id == issued["id"])
        assert (await connection.execute(query)).scalar_one() == PEPPERS.sign(secret)
    [entry] = await admin.audit(subject_type="key", subject_id=issued["id"])
    assert (entry["action"], entry["team_id"]) == ("key.issue", team["id"])
    assert entry["detail"]["name"] == "ci"


async def test_every_wrong_field_of_a_key_is_named_at_once(admin: Admin) -> None:
    await admin.team("Strict")
    body = {
        "name": "",
        "expires_at": "2020-01-01T00:00:00Z",
        "allowed_models": "a",
        "allowed_addresses": ["10.0.0.300"],
        "requests_per_minute": "5",
        "max_inflight": 1,
    }
    status, _, message = await admin.refused("POST", "/teams/strict/keys", body)
    assert status == 400
    assert message.split("; ") == [
        "name: must have 1 to 100 characters",
        "expires_at: must be in the future",
        "allowed_models: must be a list of 1 to 200 model names, or null for every model",
        "allowed_addresses: '10.0.0.300' is no IP address (10.1.2.3, 2001:db8::1) or network (10.0.0.0/8)",
        "requests_per_minute: must be a whole number from 1 to 1000000",
        "max_inflight: unknown field, did you mean max_in_flight?",
    ]


@pytest.mark.parametrize(
    "moment", ["2999-01-01", "2999-01-01T00:00:00", "soon", 1e12, "9999-12-31T23:59:59-23:59", ""]
)
async def test_expiry_needs_a_moment_with_a_zone(admin: Admin, moment: object) -> None:
    team = await admin.team(f"Moment {moment}")
    body = {"name": "k", "expires_at": moment}
    status, _, message = await admin.refused("POST", f"/teams/{team['id']}/keys", body)
    assert (status, message[:31]) == (400, "expires_at: must be a time in I")


async def test_a_key_changes_until_it_is_revoked(admin: Admin) -> None:
    await admin.team("Editing")
    key = await admin.key("editing", max_in_flight=2)
    path = f"/keys/{key['id']}"
    changed = await admin.ok("PATCH", path, {"name": "new", "allowed_addresses": ["10.0.0.1"]})
    assert (changed["name"], changed["allowed_addresses"], changed["max_in_flight"]) == (
        "new",
        ["10.0.0.1"],
        2,
    )
    assert (await admin.ok("PATCH", path, {"max_in_flight": None}))["max_in_flight"] is None
    assert ("key", key["id"]) in admin.heard.news
    admin.heard.news.clear()
    revoked = await admin.ok("POST", f"{path}/revoke")
    assert (revoked["state"], revoked["revoked_at"] is None) == ("revoked", False)
    assert admin.heard.news == [("key", key["id"])]
    assert await admin.ok("POST", f"{path}/revoke") == revoked
    assert (await admin.refused("PATCH", path, {"name": "x"}))[:2] == (409, "key_revoked")
    entries = await admin.audit(subject_type="key", subject_id=key["id"])
    assert [entry["action"] for entry in entries] == ["key.revoke", "key.update", "key.update", "key.issue"]


async def test_a_key_expires_by_the_clock(admin: Admin) -> None:
    await admin.team("Expiring")
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    key = await admin.key("expiring", expires_at=soon)
    admin.clock.ahead = timedelta(hours=2)
    assert (await admin.ok("GET", f"/keys/{key['id']}"))["state"] == "expired"
    assert (await admin.refused("POST", f"/keys/{key['id']}/rotate"))[:2] == (409, "key_expired")
    later = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
    assert (await admin.ok("PATCH", f"/keys/{key['id']}", {"expires_at": later}))["state"] == "active"


async def test_rotation_lets_both_keys_work_for_the_overlap(admin: Admin) -> None:
    await admin.team("Rotating")
    restrictions = {"allowed_models": ["a"], "allowed_addresses": ["10.0.0.0/8"], "requests_per_minute": 7}
    old = await admin.key("rotating", name="app", max_in_flight=3, **restrictions)
    await admin.ok("PUT", f"/keys/{old['id']}/quotas/day", {"limit": 4, "enforce": False})
    before = datetime.now(UTC)
    answer = await admin.call("POST", f"/keys/{old['id']}/rotate", {"overlap_seconds": 3600})
    assert answer.status_code == 201
    new = answer.json()
    assert new["id"] != old["id"]
    assert new["secret"] != old["secret"]
    assert new["state"] == "active"
    for name in ("name", "team", "max_in_flight", "expires_at", *restrictions):
        assert new[name] == old[name], name
    [quota] = (await admin.ok("GET", f"/keys/{new['id']}/quotas"))["data"]
    assert (quota["period"], quota["limit"], quota["enforce"]) == ("day", 4, False)
    now_old = await admin.ok("GET", f"/keys/{old['id']}")
    assert (now_old["state"], now_old["replaced_by"]) == ("rotated", new["id"])
    left = datetime.fromisoformat(now_old["expires_at"]) - before
    assert timedelta(seconds=3600) <= left < timedelta(seconds=3660)
    assert ("key", old["id"]) in admin.heard.news
    assert (await admin.refused("POST", f"/keys/{old['id']}/rotate"))[:2] == (409, "key_rotated")
    admin.clock.ahead = timedelta(hours=2)
    assert (await admin.ok("GET", f"/keys/{old['id']}"))["state"] == "expired"
    actions = [entry["action"] for entry in await admin.audit(subject_type="key", subject_id=old["id"])]
    assert actions == ["key.rotate", "quota.set", "key.issue"]


async def test_the_old_key_and_the_new_one_have_their_quotas_in_common(admin: Admin) -> None:
    team = await admin.team("Sharing")
    old = await admin.key("sharing")
    await admin.ok("PUT", f"/keys/{old['id']}/quotas/day", {"limit": 4})
    new = await admin.ok("POST", f"/keys/{old['id']}/rotate", {"overlap_seconds": 3600})
    await admin.ok("PUT", f"/keys/{old['id']}/quotas/day", {"limit": 5})
    await admin.ok("PUT", f"/keys/{new['id']}/quotas/total", {"limit": 9})
    for key in (old, new):
        path = f"/keys/{key['id']}/quotas"
        found = (await admin.ok("GET", path))["data"]
        assert [(one["scope"], one["period"], one["limit"]) for one in found] == [
            ("key", "day", 5),
            ("key", "total", 9),
        ]
        assert await admin.ok("GET", f"{path}/total") == found[1]
    await admin.ok("DELETE", f"/keys/{old['id']}/quotas/day")
    assert (await admin.refused("DELETE", f"/keys/{new['id']}/quotas/day"))[:2] == (404, "quota_not_found")
    said = [one for one in await admin.audit(team="sharing") if one["action"].startswith("quota")]
    assert [(one["action"], one["subject_id"], one["team_id"]) for one in said] == [
        ("quota.remove", old["id"], team["id"]),
        ("quota.set", new["id"], team["id"]),
        ("quota.set", old["id"], team["id"]),
        ("quota.set", old["id"], team["id"]),
    ]


async def test_the_overlap_is_a_day_and_never_outlives_the_key(admin: Admin) -> None:
    await admin.team("Overlapping")
    plain = await admin.key("overlapping")
    await admin.ok("POST", f"/keys/{plain['id']}/rotate")
    ends = datetime.fromisoformat((await admin.ok("GET", f"/keys/{plain['id']}"))["expires_at"])
    assert timedelta(hours=23) < ends - datetime.now(UTC) <= timedelta(hours=24)

    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    short = await admin.key("overlapping", expires_at=soon)
    successor = await admin.ok("POST", f"/keys/{short['id']}/rotate", {"overlap_seconds": 86_400})
    assert (await admin.ok("GET", f"/keys/{short['id']}"))["expires_at"] == short["expires_at"]
    assert successor["expires_at"] == short["expires_at"], "a rotation does not prolong a key"


async def test_no_overlap_revokes_the_old_key_at_once(admin: Admin) -> None:
    await admin.team("Hasty")
    old = await admin.key("hasty")
    new = await admin.ok("POST", f"/keys/{old['id']}/rotate", {"overlap_seconds": 0})
    now_old = await admin.ok("GET", f"/keys/{old['id']}")
    assert (now_old["state"], now_old["replaced_by"]) == ("revoked", new["id"])
    revoked = await admin.key("hasty")
    await admin.ok("POST", f"/keys/{revoked['id']}/revoke")
    assert (await admin.refused("POST", f"/keys/{revoked['id']}/rotate"))[:2] == (409, "key_revoked")


@pytest.mark.parametrize("seconds", [-1, 2_592_001, 1.5, "60", None, True])
async def test_the_overlap_has_bounds(admin: Admin, seconds: object) -> None:
    body = {"overlap_seconds": seconds}
    status, _, message = await admin.refused("POST", "/keys/0123456789/rotate", body)
    assert (status, message) == (400, "overlap_seconds: must be a whole number from 0 to 2592000")


async def test_a_key_is_rotated_once_however_many_ask(admin: Admin) -> None:
    await admin.team("Contended keys")
    key = await admin.key("contended-keys")
    path = f"/keys/{key['id']}/rotate"
    answers = await asyncio.gather(*(admin.call("POST", path) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


@pytest.mark.parametrize("ident", ["0123456789", "short", "a%00b4567890", "ü123456789"])
async def test_unknown_keys_are_404(admin: Admin, ident: str) -> None:
    for method, verb in (
        ("GET", ""),
        ("PATCH", ""),
        ("POST", "/revoke"),
        ("POST", "/rotate"),
        ("GET", "/quotas"),
    ):
        assert (await admin.refused(method, f"/keys/{ident}{verb}"))[0] == 404
