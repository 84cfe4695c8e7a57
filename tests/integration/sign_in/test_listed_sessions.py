"""Who is signed in, and how an admin ends it: one sign-in, all of a person, all of a token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.fakes import oidc_provider as fake
from tests.fakes.oidc_provider import CLIENT, SECRET, FakeProvider
from tests.integration.sign_in.conftest import BOOTSTRAP, Site, Sites

STATUS = "/admin/api/status"
SESSIONS = "/admin/api/sessions"
ADMIN = {"authorization": f"Bearer {BOOTSTRAP}"}
FIELDS = {"id", "subject", "name", "role", "created_at", "last_seen_at", "ended_at"}
ADA = "oidc:ada-1815"


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with fake.oidc_provider() as found:
        yield found


@pytest.fixture
def oidc(sites: Sites, provider: FakeProvider) -> Site:
    return sites(
        server__public_url="https://gateway.test",
        admin__oidc_issuer=provider.base,
        admin__oidc_client_id=CLIENT,
        admin__oidc_client_secret=SECRET,
        admin__oidc_admin_groups="platform,owners",
    )


async def round_trip(site: Site, provider: FakeProvider) -> httpx.AsyncClient:
    browser = site.browser()
    start = await browser.get("/admin/oidc/start")
    query = provider.authorize(start.headers["location"])
    assert (await browser.get(f"/admin/oidc/callback?{query}")).status_code == 303
    return browser


async def listed(site: Site, **query: str) -> list[dict[str, Any]]:
    answer = await site.browser().get(SESSIONS, params=query, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def entries(site: Site, session: str) -> list[tuple[str, str]]:
    found = await site.sql(
        "SELECT actor, action FROM audit_entries WHERE subject_type = 'session' AND subject_id = %(id)s ORDER BY id",
        id=session,
    )
    return [(row.actor, row.action) for row in found]


async def test_the_living_ones_are_listed_and_one_is_ended_everywhere(sites: Sites) -> None:
    here, there = sites(), sites()
    issued = await here.token("admin", "Grace")
    subject = f"admin-token:{issued.token.id}"
    kept, gone = [await site.signed_in(issued.secret) for site in (here, there)]
    newest, oldest = await listed(here, subject=subject)
    assert set(newest) == FIELDS
    assert (newest["subject"], newest["name"], newest["role"]) == (subject, "Grace", "admin")
    assert newest["id"] > oldest["id"], "newest first"

    ended = await here.browser().post(f"{SESSIONS}/{newest['id']}/end", headers=ADMIN)
    assert ended.status_code == 200
    assert ended.json()["ended_at"] is not None
    assert (await gone.get(STATUS)).status_code == 401
    assert (await kept.get(STATUS)).status_code == 200
    again = await here.browser().post(f"{SESSIONS}/{newest['id']}/end", headers=ADMIN)
    assert (again.status_code, again.json()) == (200, ended.json())
    assert await entries(here, newest["id"]) == [(subject, "session.sign-in"), ("bootstrap", "session.end")]
    assert [one["id"] for one in await listed(here, subject=subject)] == [oldest["id"]]


async def test_all_of_a_person_end_at_once_and_nobody_elses(oidc: Site, provider: FakeProvider) -> None:
    browsers = [await round_trip(oidc, provider) for _ in range(2)]
    bystander = await oidc.signed_in((await oidc.token("viewer")).secret)
    before = await listed(oidc, subject=ADA)
    assert len(before) == 2
    answer = await oidc.browser().post(f"{SESSIONS}/end", headers=ADMIN, json={"subject": ADA})
    assert answer.status_code == 200, answer.text
    assert [one["id"] for one in answer.json()["data"]] == [one["id"] for one in before]
    assert [(await browser.get(STATUS)).status_code for browser in browsers] == [401, 401]
    assert (await bystander.get(STATUS)).status_code == 200
    assert await listed(oidc, subject=ADA) == []
    for one in before:
        assert await entries(oidc, one["id"]) == [(ADA, "session.sign-in"), ("bootstrap", "session.end")]
    nothing = await oidc.browser().post(f"{SESSIONS}/end", headers=ADMIN, json={"subject": ADA})
    assert nothing.json() == {"data": [], "has_more": False, "next": None}


async def test_what_is_over_is_not_listed_and_cannot_be_ended(site: Site) -> None:
    idle, old, revoked = [await site.token("admin") for _ in range(3)]
    for issued in (idle, old, revoked):
        await site.signed_in(issued.secret)
    found = {one["subject"]: one["id"] for one in await listed(site)}
    late = "UPDATE admin_sessions SET {} = now() - interval '9 hours' WHERE token_id = %(id)s"
    await site.sql(late.format("last_seen_at"), id=idle.token.id)
    await site.sql(late.format("created_at"), id=old.token.id)
    await site.sql("UPDATE admin_tokens SET revoked_at = now() WHERE id = %(id)s", id=revoked.token.id)
    over = [f"admin-token:{issued.token.id}" for issued in (idle, old, revoked)]
    assert not {one["subject"] for one in await listed(site)} & set(over)
    for ident in (*(found[subject] for subject in over), str(uuid4()), "nowhere"):
        answer = await site.browser().post(f"{SESSIONS}/{ident}/end", headers=ADMIN)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "session_not_found")
    for subject in over:
        ended = await site.browser().post(f"{SESSIONS}/end", headers=ADMIN, json={"subject": subject})
        assert ended.json()["data"] == []


async def test_a_page_goes_on_where_the_one_before_stopped(site: Site) -> None:
    issued = await site.token("viewer")
    subject = f"admin-token:{issued.token.id}"
    for _ in range(3):
        await site.signed_in(issued.secret)
    everything = [one["id"] for one in await listed(site, subject=subject)]
    first = (
        await site.browser().get(SESSIONS, params={"subject": subject, "limit": "2"}, headers=ADMIN)
    ).json()
    assert first["has_more"] is True
    await site.signed_in(issued.secret)
    rest = await listed(site, subject=subject, limit="2", after=first["next"])
    assert [one["id"] for one in first["data"] + rest] == everything


async def test_a_viewer_sees_who_is_signed_in_and_ends_nobody(site: Site) -> None:
    issued = await site.token("viewer")
    browser = await site.signed_in(issued.secret)
    [own] = await listed(site, subject=f"admin-token:{issued.token.id}")
    assert (await browser.get(SESSIONS)).status_code == 200
    for path, body in ((f"{SESSIONS}/{own['id']}/end", {}), (f"{SESSIONS}/end", {"subject": "bootstrap"})):
        assert (await browser.post(path, json=body)).status_code == 403
    assert (await browser.get(STATUS)).status_code == 200
