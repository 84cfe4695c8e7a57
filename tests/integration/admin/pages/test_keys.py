"""Keys on the dashboard: the list of all teams, and one key with its quotas, rotation and end."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta

from tests.integration.admin.pages.conftest import Dashboard, text_of
from tests.integration.admin.pages.traffic import traffic

HOSTILE = '"><script>alert(1)</script>'


async def test_keys_of_all_teams_are_listed_by_state(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Ones")
    other = await traffic(dashboard, "Others")
    await dashboard.api("POST", f"/keys/{other.key['id']}/revoke", {})
    text = await dashboard.page("/keys")
    assert "key of Ones" in text
    assert "key of Others" in text
    assert f"{made.key['prefix']}_…{made.key['last4']}" in text
    active = await dashboard.page("/keys", state="active")
    assert "key of Ones" in active
    assert "key of Others" not in active
    assert "No key matches" in await dashboard.page("/keys", team="others", state="expired")
    assert (await dashboard.viewer.get("/admin/keys", params={"state": "odd"})).status_code == 400
    answer = await dashboard.viewer.get("/admin/keys", params={"team": "ones", "format": "csv"})
    [row] = csv.DictReader(io.StringIO(answer.text))
    assert (row["id"], row["team"], row["state"]) == (made.key["id"], "ones", "active")


async def test_states_are_told_apart_as_a_key_says_of_itself(dashboard: Dashboard) -> None:
    ids = {}
    for name in ("active", "rotated", "expired", "revoked"):
        ids[name] = (await traffic(dashboard, f"State {name}")).key["id"]
    await dashboard.api("POST", f"/keys/{ids['rotated']}/rotate", {})
    await dashboard.api("POST", f"/keys/{ids['revoked']}/revoke", {})
    await dashboard.site.sql(
        "UPDATE team_keys SET expires_at = now() - interval '1 hour' WHERE id = %(id)s", id=ids["expired"]
    )
    for name, ident in ids.items():
        found = (await dashboard.api("GET", "/keys", state=name, team=f"state-{name}"))["data"]
        assert ident in [key["id"] for key in found]
        assert {key["state"] for key in found} == {name}


async def test_a_key_shows_what_it_spent_and_may(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Spender")
    await made.settled("req_spent", 8, 6)
    ident = made.key["id"]
    await dashboard.done(f"/keys/{ident}/quotas", period="day", limit="1,000", enforce="1")
    text = await dashboard.page(f"/keys/{ident}")
    assert "a-model 1 6.00" in text
    assert "6.00 of 1,000.00 credits" in text
    assert "Last change: quota.set · bootstrap" in text
    assert "Change the key" not in text  # a viewer reads
    wrong = await dashboard.post(f"/keys/{ident}/quotas", period="week", limit="much")
    assert wrong.status_code == 400
    assert 'value="much"' in wrong.text
    await dashboard.done(f"/keys/{ident}/quotas", period="day", limit="5")
    [quota] = (await dashboard.api("GET", f"/keys/{ident}/quotas"))["data"]
    assert (quota["limit"], quota["enforce"]) == (5, False)
    await dashboard.done(f"/keys/{ident}/quotas/remove", period="day", name="day")
    assert (await dashboard.api("GET", f"/keys/{ident}/quotas"))["data"] == []


async def test_a_key_is_changed_and_a_wrong_form_loses_nothing(dashboard: Dashboard) -> None:
    ident = (await traffic(dashboard, "Changed")).key["id"]
    form = {
        "name": HOSTILE,
        "allowed_models": "veo, kling",
        "allowed_addresses": "10.0.0.0/8",
        "max_in_flight": "3",
    }
    assert await dashboard.done(f"/keys/{ident}", **form) == f"/admin/keys/{ident}?done=key-updated"
    key = await dashboard.api("GET", f"/keys/{ident}")
    assert (key["name"], key["allowed_models"], key["max_in_flight"]) == (HOSTILE, ["veo", "kling"], 3)
    source = await dashboard.source(f"/keys/{ident}")
    assert HOSTILE not in source
    assert HOSTILE in text_of(source)
    wrong = await dashboard.post(f"/keys/{ident}", **form, expires_at="soon", requests_per_minute="0")
    assert wrong.status_code == 400
    assert 'value="soon"' in wrong.text
    assert wrong.text.count('aria-invalid="true"') == 2


async def test_an_expiry_that_has_passed_can_stay(dashboard: Dashboard) -> None:
    ident = (await traffic(dashboard, "Stays")).key["id"]
    past = (datetime.now(UTC) - timedelta(hours=1)).replace(microsecond=0)
    await dashboard.site.sql("UPDATE team_keys SET expires_at = %(at)s WHERE id = %(id)s", at=past, id=ident)
    page = await dashboard.admin.get(f"/admin/keys/{ident}")
    [shown] = re.findall(r'name="expires_at"[^>]*value="([^"]*)"', page.text)
    await dashboard.done(f"/keys/{ident}", name="renamed", expires_at=shown.replace("&#43;", "+"))
    key = await dashboard.api("GET", f"/keys/{ident}")
    assert (key["name"], datetime.fromisoformat(key["expires_at"])) == ("renamed", past)


async def test_a_key_is_rotated_and_the_new_one_shown_once(dashboard: Dashboard) -> None:
    ident = (await traffic(dashboard, "Turned")).key["id"]
    for hours in ("many", "-1", "1000"):
        wrong = await dashboard.post(f"/keys/{ident}/rotate", overlap=hours)
        assert wrong.status_code == 400
        assert "must be a number of hours, 0 to 720" in wrong.text
        assert f'value="{hours}"' in wrong.text
    answer = await dashboard.post(f"/keys/{ident}/rotate", overlap="0.5")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    [secret] = set(re.findall(r"pxg_\w{40,}", answer.text))
    old = await dashboard.api("GET", f"/keys/{ident}")
    left = datetime.fromisoformat(old["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=28) < left <= timedelta(minutes=30)
    new = await dashboard.source(f"/keys/{old['replaced_by']}")
    assert secret not in new
    twice = await dashboard.post(f"/keys/{ident}/rotate", overlap="1")
    assert twice.status_code == 400
    assert "already replaced" in text_of(twice.text)


async def test_a_key_ends_when_its_name_was_typed(dashboard: Dashboard) -> None:
    made = await traffic(dashboard, "Ended")
    path = f"/keys/{made.key['id']}/revoke"
    assert (await dashboard.viewer.get(f"/admin{path}")).status_code == 403
    assert (await dashboard.viewer.post(f"/admin{path}", data={"name": "key of Ended"})).status_code == 403
    assert "key of Ended" in (await dashboard.admin.get(f"/admin{path}")).text
    assert (await dashboard.post(path, name="another")).status_code == 400
    assert (await dashboard.api("GET", f"/keys/{made.key['id']}"))["state"] == "active"
    assert await dashboard.done(path, name="key of Ended") == f"/admin/keys/{made.key['id']}?done=key-revoked"
    assert (await dashboard.api("GET", f"/keys/{made.key['id']}"))["state"] == "revoked"
    assert "revoked" in await dashboard.page(f"/keys/{made.key['id']}")
