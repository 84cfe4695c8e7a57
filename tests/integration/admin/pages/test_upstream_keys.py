"""The pool's pages: what they show, and what they do to a key."""

from __future__ import annotations

import itertools
import re
from typing import Any
from uuid import UUID, uuid4

import pytest

from gateway.credits.rollups import Through
from tests.integration.admin.pages.conftest import Dashboard, text_of

_NUMBERS = itertools.count()
HOSTILE = "<script>alert('x')</script>"


async def key(dashboard: Dashboard, label: str | None = None) -> dict[str, Any]:
    number = next(_NUMBERS)
    body = {"label": label or f"key {number}", "secret": f"sk-pages-{uuid4().hex}"}
    added: dict[str, Any] = await dashboard.api("POST", "/upstream-keys", body)
    return added


async def actions(dashboard: Dashboard, ident: str) -> list[str]:
    """What the audit says was done to a key, newest first."""
    found = await dashboard.api("GET", "/audit", subject_type="upstream-key", subject_id=ident)
    return [entry["action"] for entry in found["data"]]


async def test_a_key_is_added_and_its_secret_shown_nowhere(dashboard: Dashboard) -> None:
    secret = f"sk-{uuid4().hex}"
    place = await dashboard.done(
        "/upstream-keys", label="from the form", secret=secret, weight="3", account="", max_in_flight=""
    )
    ident = re.fullmatch(r"/admin/upstream-keys/([0-9a-f-]{36})\?done=upstream-added", place)
    assert ident is not None
    stored = await dashboard.api("GET", f"/upstream-keys/{ident[1]}")
    assert (stored["account"], stored["weight"], stored["max_in_flight"]) == ("from the form", 3, None)
    for path in ("/upstream-keys", f"/upstream-keys/{ident[1]}"):
        source = await dashboard.source(path)
        assert secret not in source
        assert f"…{secret[-4:]}" in source
    assert await actions(dashboard, ident[1]) == ["upstream-key.add"]


async def test_a_wrong_form_is_shown_again_without_its_secret(dashboard: Dashboard) -> None:
    await key(dashboard, "taken")
    secret = f"sk-{uuid4().hex}"
    answer = await dashboard.post(
        "/upstream-keys", label="taken", secret=secret, account=HOSTILE, weight="none"
    )
    assert answer.status_code == 400
    text = text_of(answer.text)
    assert "must be a whole number from 1 to 1000" in text
    assert "Type the secret again" in text
    assert secret not in answer.text
    assert HOSTILE not in answer.text
    assert "&lt;script&gt;alert(" in answer.text
    taken = await dashboard.post("/upstream-keys", label="taken", secret=secret, weight="1")
    assert taken.status_code == 400
    assert "'taken' belongs to another upstream key" in text_of(taken.text)


async def test_a_key_is_changed(dashboard: Dashboard) -> None:
    made = await key(dashboard)
    path = f"/upstream-keys/{made['id']}"
    await dashboard.done(path, label=HOSTILE, account="else", weight="7", max_in_flight="12")
    stored = await dashboard.api("GET", path)
    assert (stored["label"], stored["account"], stored["weight"], stored["max_in_flight"]) == (
        HOSTILE,
        "else",
        7,
        12,
    )
    assert HOSTILE not in await dashboard.source(path)
    assert "Last change: upstream-key.update · bootstrap" in await dashboard.page(path)
    refused = await dashboard.post(path, label="", account="typed", weight="0", max_in_flight="")
    assert refused.status_code == 400
    assert 'value="typed"' in refused.text


async def test_drain_and_enable_take_one_press(dashboard: Dashboard) -> None:
    made = await key(dashboard)
    path = f"/upstream-keys/{made['id']}"
    assert await dashboard.done(f"{path}/drain") == f"/admin{path}?done=upstream-draining"
    assert "The upstream key takes no new paid calls." in await dashboard.page(path, done="upstream-draining")
    assert (await dashboard.api("GET", path))["state"] == "draining"
    await dashboard.done(f"{path}/enable")
    assert (await dashboard.api("GET", path))["state"] == "active"
    assert await actions(dashboard, made["id"]) == [
        "upstream-key.enable",
        "upstream-key.drain",
        "upstream-key.add",
    ]


@pytest.mark.parametrize("what", ["disable", "remove"])
async def test_an_end_needs_the_label(dashboard: Dashboard, what: str) -> None:
    made = await key(dashboard)
    path = f"/upstream-keys/{made['id']}"
    confirm = await dashboard.admin.get(f"/admin{path}/{what}")
    assert f'data-name="{made["label"]}"' in confirm.text
    for name in ("", made["label"].upper()):
        refused = await dashboard.post(f"{path}/{what}", name=name)
        assert refused.status_code == 400
        assert "nothing was changed" in text_of(refused.text)
    assert (await dashboard.api("GET", path))["state"] == "active"
    await dashboard.done(f"{path}/{what}", name=made["label"])
    if what == "disable":
        assert (await dashboard.api("GET", path))["state"] == "disabled"
    else:
        await dashboard.page(path, 404)
    assert (await actions(dashboard, made["id"]))[0] == f"upstream-key.{what}"


async def test_force_is_offered_where_tasks_would_be_lost(dashboard: Dashboard) -> None:
    made = await key(dashboard)
    await running_task(dashboard, made["id"])
    path = f"/upstream-keys/{made['id']}"
    first = await dashboard.admin.get(f"/admin{path}/remove")
    assert 'name="force"' not in first.text
    refused = await dashboard.post(f"{path}/remove", name=made["label"])
    assert refused.status_code == 400
    assert "1 unfinished task can only be read with this key" in text_of(refused.text)
    assert 'name="force"' in refused.text
    assert "Running tasks 1" in await dashboard.page(path)
    await dashboard.done(f"{path}/remove", name=made["label"], force="1")
    await dashboard.page(path, 404)


async def test_what_went_through_a_key_is_shown(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await key(dashboard)

    async def served(*_: object) -> dict[Any, tuple[Through, ...]]:
        spans = [Through(requests=count, credits=count * 1_500_000) for count in (2, 30, 4000)]
        return {UUID(made["id"]): tuple(spans)}

    monkeypatch.setattr("gateway.admin.pages.upstream_keys.rollups.upstream_credits", served)
    text = await dashboard.page("/upstream-keys")
    assert "3.00 2 calls 45.00 30 calls 6,000.00 4,000 calls" in text
    csv = (await dashboard.source("/upstream-keys", format="csv")).splitlines()
    assert csv[0].endswith(
        "created_at,requests_1d,credits_1d,requests_7d,credits_7d,requests_30d,credits_30d"
    )
    assert csv[-1].startswith("total,")
    assert csv[-1].split(",")[-5::2] == ["3", "45", "6000"]


async def test_paid_calls_of_this_process_are_counted_while_they_run(dashboard: Dashboard) -> None:
    made = await key(dashboard)
    path = f"/upstream-keys/{made['id']}"
    pool = dashboard.site.runtime.pool
    await pool.refresh()
    leases = [pool.lease_paid(lambda one: str(one.id) == made["id"]) for _ in range(2)]
    assert "In flight here 2 paid calls of this process" in await dashboard.page(path)
    for lease in leases:
        pool.release(lease)
    assert "In flight here 0 paid calls of this process" in await dashboard.page(path)


async def test_a_viewer_sees_no_button_and_presses_none(dashboard: Dashboard) -> None:
    made = await key(dashboard)
    path = f"/upstream-keys/{made['id']}"
    for place in ("/upstream-keys", path):
        assert "/drain" not in await dashboard.source(place)
        assert 'class="main"' not in await dashboard.source(place)
    for what in ("", "/drain", "/enable", "/disable", "/remove"):
        answer = await dashboard.viewer.post(f"/admin{path}{what}", data={"name": made["label"]})
        assert answer.status_code == 403, what
    for what in ("/disable", "/remove"):
        await dashboard.page(f"{path}{what}", 403)
    cross = await dashboard.admin.post(
        f"/admin{path}/drain",
        data={"name": "x"},
        headers={"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    )
    assert cross.status_code == 403
    assert (await dashboard.api("GET", path))["state"] == "active"


async def running_task(dashboard: Dashboard, upstream_key: str) -> None:
    number = next(_NUMBERS)
    team = await dashboard.api("POST", "/teams", {"name": f"Waiting {number}", "unlimited": True})
    own = await dashboard.api("POST", f"/teams/{team['id']}/keys", {"name": "k"})
    await dashboard.site.sql(
        "INSERT INTO tasks (id, team_id, key_id, hold_id, upstream_key_id, model, operation, status, body)"
        " VALUES (%(id)s, %(team)s, %(key)s, gen_random_uuid(), %(upstream)s, 'veo', 'async.videos.generations',"
        " 'processing', '{}')",
        id=f"task_{number}",
        team=team["id"],
        key=own["id"],
        upstream=upstream_key,
    )
