"""Signing in with a team key: what the session stands on, when it ends, and who cannot make one."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from gateway.access.key_format import TEAM_KEY, make
from gateway.access.sign_in_attempts import FAILURES
from gateway.db.engine import Database
from tests.integration.sign_in.conftest import BOOTSTRAP, Site, Sites
from tests.integration.sign_in.teams import Own, own

PAGES = ("/gateway/", "/gateway/team/tasks", "/gateway/team/requests", "/gateway/team/connect")
WRONG = "This team key is unknown, expired or revoked."


@pytest.fixture(autouse=True)
async def forgotten(site: Site) -> None:
    await site.sql("DELETE FROM sign_in_attempts")


def cookie_in(browser: httpx.AsyncClient) -> str:
    [cookie] = list(browser.cookies.jar)
    assert cookie.value is not None
    return cookie.value


async def is_in(browser: httpx.AsyncClient) -> bool:
    answer = await browser.get("/gateway/")
    if answer.status_code == 200:
        return True
    assert (answer.status_code, answer.headers["location"]) == (303, "/gateway/login")
    return False


async def age(team: Own, column: str, seconds: float) -> None:
    statement = f"UPDATE team_sessions SET {column} = now() - %(age)s WHERE key_id = %(key)s"
    await team.site.sql(statement, age=timedelta(seconds=seconds), key=team.key_id)


async def test_a_key_becomes_a_session_and_ends(sites: Sites) -> None:
    here, there = sites(), sites()
    team = await own(here)
    browser = here.browser()
    form = (await browser.get("/gateway/login?next=/gateway/team/tasks")).text
    assert 'name="key"' in form
    assert "Your team&#39;s page" in form or "Your team's page" in form
    assert 'value="/gateway/team/tasks"' in form
    given = {"key": f" {team.secret}\n", "next": "/gateway/team/tasks"}
    answer = await browser.post("/gateway/login", data=given)
    assert (answer.status_code, answer.headers["location"]) == (303, "/gateway/team/tasks")
    assert answer.headers["cache-control"] == "no-store"
    value = cookie_in(browser)
    assert answer.headers["set-cookie"] == f"pxg_team_session={value}; Path=/; HttpOnly; SameSite=Lax"
    elsewhere = there.browser(cookie=f"pxg_team_session={value}")
    assert await is_in(elsewhere), "any process knows it"
    out = await elsewhere.post("/gateway/logout")
    assert (out.status_code, out.headers["location"]) == (303, "/gateway/login")
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert not await is_in(browser)
    assert (await browser.post("/gateway/logout")).status_code == 303, "signing out twice is fine"
    assert (here.count("signed_in"), there.count("signed_out")) == (1, 1)


async def test_only_a_hash_of_the_cookie_is_stored_and_no_secret_is_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    team = await own(site)
    with caplog.at_level(logging.DEBUG):
        browser = await team.browser()
        pages = "".join([(await browser.get(path)).text for path in PAGES])
        pages += (await browser.post("/gateway/login", data={"key": team.secret[:-1]})).text
    value = cookie_in(browser)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", value)
    rows = (await site.sql("SELECT * FROM team_sessions")).all()
    assert rows
    assert value not in repr(rows)
    assert value.encode() not in [cell for row in rows for cell in row]
    for text in (pages, caplog.text, repr([vars(record) for record in caplog.records])):
        assert value not in text
        assert team.secret[15:47] not in text


async def test_each_sign_in_has_an_id_of_its_own_and_ends_the_one_before(site: Site) -> None:
    team = await own(site)
    planted = "A" * 43
    browser = site.browser()
    browser.cookies.set("pxg_team_session", planted, domain="gateway.test", path="/")
    values = [planted]
    for _ in range(2):
        assert (await browser.post("/gateway/login", data={"key": team.secret})).status_code == 303
        values.append(cookie_in(browser))
    assert len(set(values)) == 3
    alive = [await is_in(site.browser(cookie=f"pxg_team_session={value}")) for value in values]
    assert alive == [False, False, True]


async def test_over_https_the_cookie_is_bound_to_the_host(sites: Sites) -> None:
    site = sites(server__public_url="https://gateway.test")
    browser = await (await own(site)).browser()
    [cookie] = list(browser.cookies.jar)
    assert (cookie.name, cookie.secure, cookie.path) == ("__Host-pxg_team_session", True, "/")
    assert not await is_in(site.browser(cookie=f"pxg_team_session={cookie.value}"))


async def test_the_session_opens_nothing_but_the_team_s_pages(site: Site) -> None:
    browser = await (await own(site)).browser()
    for path in PAGES:
        assert (await browser.get(path)).status_code == 200
        assert (await browser.head(path)).status_code == 200
        assert (await browser.post(path)).status_code == 405
    assert (await browser.get("/admin/")).headers["location"] == "/admin/login"
    for path in ("/admin/api/status", "/gateway/account", "/gateway/usage", "/gateway/tasks", "/v1/models"):
        assert (await browser.get(path)).status_code == 401, path
    assert (await browser.post("/v1/images/generations", json={})).status_code == 401


async def test_an_admin_s_session_and_a_bearer_key_are_not_it(site: Site) -> None:
    admin = await site.signed_in(BOOTSTRAP)
    assert not await is_in(admin)
    value = cookie_in(admin)
    assert not await is_in(site.browser(cookie=f"pxg_team_session={value}"))
    assert not await is_in(site.browser(authorization=f"Bearer {(await own(site)).secret}"))
    answer = await site.browser("192.0.2.60").post("/gateway/login", data={"key": BOOTSTRAP})
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


# Time -------------------------------------------------------------------------------------------------------


async def test_an_idle_session_ends_and_use_keeps_it_awake(site: Site) -> None:
    team = await own(site)
    browser = await team.browser()
    for _ in range(2):
        await age(team, "last_seen_at", 1795)
        assert await is_in(browser)
    await age(team, "last_seen_at", 1801)
    assert not await is_in(browser)
    assert not await is_in(browser), "asking did not count as being seen"


async def test_a_page_that_asks_on_its_own_keeps_nothing_awake(site: Site) -> None:
    team = await own(site)
    browser = await team.browser()
    await age(team, "last_seen_at", 1700)
    assert (await browser.get("/gateway/", headers={"hx-request": "true"})).status_code == 200
    seen = "SELECT now() - last_seen_at > interval '1690 seconds' FROM team_sessions WHERE key_id = %(key)s"
    assert (await site.sql(seen, key=team.key_id)).scalar_one()
    await age(team, "last_seen_at", 1801)
    answer = await browser.get("/gateway/team/tasks", headers={"hx-request": "true"})
    assert (answer.status_code, answer.text) == (200, "")
    assert answer.headers["hx-redirect"] == "/gateway/login?next=/gateway/team/tasks"


async def test_no_use_goes_beyond_the_absolute_end(site: Site) -> None:
    team = await own(site)
    browser = await team.browser()
    await age(team, "created_at", 28_795)
    assert await is_in(browser)
    await age(team, "created_at", 28_801)
    assert not await is_in(browser)


async def test_the_rows_of_ended_sessions_go_and_living_ones_stay(site: Site) -> None:
    lives, idle, old, out = [await own(site) for _ in range(4)]
    browsers = [await team.browser() for team in (lives, idle, old, out)]
    await age(idle, "last_seen_at", 1801)
    await age(old, "created_at", 28_801)
    await browsers[3].post("/gateway/logout")
    await site.runtime.team_visits.sessions.clear()
    ids = [team.key_id for team in (lives, idle, old, out)]
    left = await site.sql("SELECT key_id FROM team_sessions WHERE key_id = ANY(%(ids)s)", ids=ids)
    assert [row.key_id for row in left] == [lives.key_id]
    assert [await is_in(browser) for browser in browsers] == [True, False, False, False]


# What a session stands on -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending",
    [
        "UPDATE team_keys SET revoked_at = now() WHERE id = %(key)s",
        "UPDATE team_keys SET expires_at = now() - interval '1 second' WHERE id = %(key)s",
        "UPDATE teams SET suspended_at = now() WHERE id = (SELECT team_id FROM team_keys WHERE id = %(key)s)",
    ],
)
async def test_it_dies_with_its_key_everywhere_at_once_and_for_good(sites: Sites, ending: str) -> None:
    here, there = sites(), sites()
    team, other = await own(here), await own(here)
    browsers = [await team.browser(), await team.browser(site=there)]
    bystander = await other.browser()
    await here.sql(ending, key=team.key_id)
    assert [await is_in(browser) for browser in browsers] == [False, False]
    assert await is_in(bystander)
    await here.sql(
        "UPDATE team_keys SET revoked_at = NULL, expires_at = NULL WHERE id = %(key)s", key=team.key_id
    )
    await here.sql("UPDATE teams SET suspended_at = NULL WHERE id = %(id)s", id=team.team.id)
    assert [await is_in(browser) for browser in browsers] == [False, False], "resumed, it is not woken"
    assert await is_in(await team.browser())


async def test_an_admin_s_word_ends_it_too(site: Site) -> None:
    team = await own(site)
    browser = await team.browser()
    admin = await site.signed_in(BOOTSTRAP)
    assert (await admin.post(f"/admin/api/keys/{team.key_id}/revoke")).status_code == 200
    assert not await is_in(browser)
    again = await site.browser("192.0.2.61").post("/gateway/login", data={"key": team.secret})
    assert (again.status_code, WRONG in again.text) == (401, True)


async def test_a_key_for_one_network_opens_the_page_from_there_alone(site: Site) -> None:
    team = await own(site, allowed_addresses=("203.0.113.0/24",))
    browser = await team.browser("203.0.113.9")
    moved = site.browser("192.0.2.62", cookie=f"pxg_team_session={cookie_in(browser)}")
    assert not await is_in(moved)
    assert await is_in(browser), "who tried elsewhere has ended nothing"
    refused = await site.browser("192.0.2.62").post("/gateway/login", data={"key": team.secret})
    assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)
    assert "may not be used from 192.0.2.62" in refused.text


async def test_a_suspended_team_is_told_so_and_not_let_in(site: Site) -> None:
    team = await own(site)
    await site.sql("UPDATE teams SET suspended_at = now() WHERE id = %(id)s", id=team.team.id)
    answer = await site.browser("192.0.2.63").post("/gateway/login", data={"key": team.secret})
    assert (answer.status_code, "is suspended" in answer.text) == (403, True)
    assert "set-cookie" not in answer.headers


# The form ---------------------------------------------------------------------------------------------------


async def test_every_problem_of_a_key_has_one_wording(site: Site) -> None:
    expired = await own(site, expires_at=datetime.now(UTC) + timedelta(hours=1))
    revoked = await own(site)
    for column, team in (("expires_at", expired), ("revoked_at", revoked)):
        statement = f"UPDATE team_keys SET {column} = now() - interval '1 second' WHERE id = %(key)s"
        await site.sql(statement, key=team.key_id)
    bodies = set()
    for key in ("", "x", BOOTSTRAP, make(TEAM_KEY).text, expired.secret, revoked.secret):
        answer = await site.browser("192.0.2.64").post("/gateway/login", data={"key": key})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        bodies.add(answer.text)
    assert len(bodies) == 1
    assert WRONG in bodies.pop()


async def test_attempts_are_limited_and_a_good_key_always_signs_in(sites: Sites) -> None:
    here, there = sites(), sites()
    team = await own(here)

    async def tried(site: Site, key: str) -> httpx.Response:
        return await site.browser("198.51.100.70").post("/gateway/login", data={"key": key})

    statuses = [
        (await tried((here, there)[n % 2], make(TEAM_KEY).text)).status_code for n in range(FAILURES + 1)
    ]
    assert statuses == [401] * FAILURES + [429]
    limited = await tried(there, make(TEAM_KEY).text)
    assert 890 <= int(limited.headers["retry-after"]) <= 900
    assert "Too many failed sign-ins" in limited.text
    assert (await tried(here, team.secret)).status_code == 303
    assert (await tried(here, "pxg_wrong")).status_code == 401, "what cannot be a key is not counted"
    found = await here.sql("SELECT detail FROM audit_entries WHERE subject_id = '198.51.100.70' ORDER BY id")
    assert [row.detail for row in found] == [
        {"reason": "unknown team key", "failures": number} for number in (1, FAILURES)
    ]


async def test_what_cannot_be_a_key_costs_no_query(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    good = make(TEAM_KEY).text
    with monkeypatch.context() as patched:
        patched.setattr(Database, "autocommit", None)
        patched.setattr(Database, "transaction", None)
        for key in (
            "",
            "pxg_wrong",
            "pxg_é",
            good[:-1],
            good[:-1] + ("0" if good[-1] != "0" else "1"),
            "x" * 500,
        ):
            answer = await site.browser("198.51.100.71").post("/gateway/login", data={"key": key})
            assert answer.status_code == 401
    assert (await site.sql("SELECT 1 FROM sign_in_attempts")).first() is None


FOREIGN = [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "null"}]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_another_site_signs_nobody_in_or_out(site: Site, headers: dict[str, str]) -> None:
    team = await own(site)
    browser = await team.browser()
    for path in ("/gateway/login", "/gateway/logout", "/gateway/look"):
        answer = await browser.post(path, data={"key": team.secret}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "cross_site"), path
        assert "set-cookie" not in answer.headers
    assert (await browser.get("/gateway/", headers=headers)).status_code == 200, "a link from elsewhere works"


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"key": "x"}', "application/json", 415),
        (b"key=x&key=y", "application/x-www-form-urlencoded", 400),
        (b"key=" + b"x" * 8192, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"a%d=1" % number for number in range(20)), "application/x-www-form-urlencoded", 400),
    ],
)
async def test_odd_forms(site: Site, content: bytes, kind: str, status: int) -> None:
    answer = await site.browser().post("/gateway/login", content=content, headers={"content-type": kind})
    assert answer.status_code == status


@pytest.mark.parametrize(
    "asked",
    [
        "//evil.example.com",
        "https://evil.example.com/gateway/",
        "/admin/",
        "/gateway/logout",
        "/gateway/../x",
    ],
)
async def test_the_way_back_leads_nowhere_else(site: Site, asked: str) -> None:
    data = {"key": (await own(site)).secret, "next": asked}
    answer = await site.browser().post("/gateway/login", data=data)
    assert answer.headers["location"] == "/gateway/"


async def test_without_the_database_the_pages_say_so(sites: Sites) -> None:
    site = sites(database__url="postgresql+psycopg://nobody@127.0.0.1:1/none")
    answer = await site.browser().post("/gateway/login", data={"key": make(TEAM_KEY).text})
    assert (answer.status_code, 'name="key"' in answer.text) == (503, True)
    page = await site.browser(cookie=f"pxg_team_session={'A' * 43}").get("/gateway/")
    assert (page.status_code, "database_unavailable" in page.text) == (503, True)
