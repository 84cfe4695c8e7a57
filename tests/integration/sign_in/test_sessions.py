"""Sessions of browsers: from the form to the sign-out, over two processes that share nothing but Postgres."""

from __future__ import annotations

import re
from datetime import timedelta

import httpx
import pytest

from tests.integration.sign_in.conftest import BOOTSTRAP, Site, Sites

API = "/admin/api/status"
OTHER_BOOTSTRAP = "oT6yH2nG9vK3xC8wB5zM1qL4jF7dS0pA"


def cookie_of(answer: httpx.Response, name: str = "pxg_session") -> str:
    found = re.search(rf"(?:^|, ){name}=([^;,]*)", answer.headers["set-cookie"])
    assert found is not None, answer.headers["set-cookie"]
    return found[1]


async def entries(site: Site, action: str, actor: str) -> int:
    found = await site.sql(
        "SELECT count(*) FROM audit_entries WHERE action = %(action)s AND actor = %(actor)s",
        action=action,
        actor=actor,
    )
    return int(found.scalar_one())


# In and out -------------------------------------------------------------------------------------------------


async def test_a_token_becomes_a_session_and_ends(sites: Sites) -> None:
    here, there = sites(), sites()
    issued = await here.token("admin", "ops")
    actor = f"admin-token:{issued.token.id}"
    browser = here.browser()
    form = await browser.get("/admin/login?next=/admin/teams")
    assert 'name="token"' in form.text
    assert 'value="/admin/teams"' in form.text
    answer = await browser.post("/admin/login", data={"token": f" {issued.secret}\n", "next": "/admin/teams"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/teams")
    assert answer.headers["cache-control"] == "no-store"
    value = cookie_of(answer)
    assert answer.headers["set-cookie"] == f"pxg_session={value}; Path=/; HttpOnly; SameSite=Lax"

    front = await browser.get("/admin/")
    assert front.status_code == 200
    assert '<span>ops</span><span class="role">admin</span>' in front.text
    elsewhere = there.browser(cookie=f"pxg_session={value}")
    assert (await elsewhere.get(API)).status_code == 200, "any process knows it"
    made = await elsewhere.post("/admin/api/teams", json={"name": "By cookie", "unlimited": True})
    assert made.status_code == 201
    assert await entries(here, "team.create", actor) == 1

    out = await there.browser(cookie=f"pxg_session={value}").post("/admin/logout")
    assert (out.status_code, out.headers["location"]) == (303, "/admin/login")
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert (await browser.get(API)).status_code == 401
    led = await browser.get("/admin/")
    assert (led.status_code, led.headers["location"]) == (303, "/admin/login")
    assert (await browser.post("/admin/logout")).status_code == 303, "signing out twice is fine"
    assert [await entries(here, f"session.{what}", actor) for what in ("sign-in", "sign-out")] == [1, 1]
    assert (here.count("signed_in"), there.count("signed_out")) == (1, 1)


async def test_only_a_hash_of_the_cookie_is_stored(site: Site) -> None:
    browser = await site.signed_in((await site.token("viewer")).secret)
    [value] = [cookie.value for cookie in browser.cookies.jar]
    assert value is not None
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", value)
    rows = (await site.sql("SELECT * FROM admin_sessions")).all()
    assert rows
    assert value not in repr(rows)
    assert value.encode() not in [cell for row in rows for cell in row]


async def test_each_sign_in_has_an_id_of_its_own_and_ends_the_one_before(site: Site) -> None:
    secret = (await site.token("admin")).secret
    browser = await site.signed_in(secret)
    first = cookie_of_jar(browser)
    again = await browser.post("/admin/login", data={"token": secret})
    second = cookie_of(again)
    assert first != second
    assert (await site.browser(cookie=f"pxg_session={first}").get(API)).status_code == 401
    assert (await site.browser(cookie=f"pxg_session={second}").get(API)).status_code == 200


async def test_a_planted_id_is_not_taken_over(site: Site) -> None:
    planted = "A" * 43
    browser = site.browser(cookie=f"pxg_session={planted}")
    answer = await browser.post("/admin/login", data={"token": (await site.token("admin")).secret})
    assert cookie_of(answer) != planted
    assert (await site.browser(cookie=f"pxg_session={planted}").get(API)).status_code == 401


def cookie_of_jar(browser: httpx.AsyncClient) -> str:
    [cookie] = list(browser.cookies.jar)
    assert cookie.value is not None
    return cookie.value


@pytest.mark.parametrize("value", ["", "x", "A" * 42, "A" * 44, "A" * 42 + "!", "' OR 1=1 --", "%00"])
async def test_what_is_no_session_is_refused(site: Site, value: str) -> None:
    browser = site.browser(cookie=f"pxg_session={value}")
    answer = await browser.get(API)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (401, "invalid_admin_token")
    assert (await browser.get("/admin/")).status_code == 303


async def test_over_https_the_cookie_is_bound_to_the_host(sites: Sites) -> None:
    site = sites(server__public_url="https://gateway.test")
    browser = await site.signed_in(BOOTSTRAP)
    [cookie] = list(browser.cookies.jar)
    assert (cookie.name, cookie.secure, cookie.path) == ("__Host-pxg_session", True, "/")
    assert (await browser.get(API)).status_code == 200
    plain = site.browser(cookie=f"pxg_session={cookie.value}")
    assert (await plain.get(API)).status_code == 401, "the name without __Host- is not read"


async def test_the_pages_are_kept_by_nobody_and_run_nothing_but_our_files(site: Site) -> None:
    browser = await site.signed_in(BOOTSTRAP)
    for path in ("/admin/login", "/admin/"):
        answer = await browser.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"} <= set(policy)
        assert {"script-src 'self'", "style-src 'self'"} <= set(policy)
        assert "unsafe" not in answer.headers["content-security-policy"]
        for tag in re.findall(r"<script[^>]*>|<link[^>]*>", answer.text):
            assert re.search(r'(src|href)="/gateway/static/[0-9a-f]{16}/', tag), tag
        assert not re.search(r"""<style|\sstyle=|\son[a-z]+=["']""", answer.text)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "same-origin", "no-referrer would make the Origin null"


async def test_what_is_put_into_a_page_is_escaped(site: Site) -> None:
    browser = await site.signed_in((await site.token("viewer", "<script>alert(1)</script>")).secret)
    front = (await browser.get("/admin/")).text
    assert "<script>" not in front
    assert "<span>&lt;script&gt;alert(1)&lt;/script&gt;</span>" in front
    form = await site.browser().get('/admin/login?next=/admin/"><script>')
    assert "<script>" not in form.text


# Time -------------------------------------------------------------------------------------------------------


async def age(site: Site, token_id: object, column: str, seconds: float) -> None:
    statement = f"UPDATE admin_sessions SET {column} = now() - %(age)s WHERE token_id = %(id)s"
    await site.sql(statement, age=timedelta(seconds=seconds), id=token_id)


async def test_an_idle_session_ends_and_is_not_woken(site: Site) -> None:
    issued = await site.token("admin")
    browser = await site.signed_in(issued.secret)
    await age(site, issued.token.id, "last_seen_at", 1795)
    assert (await browser.get(API)).status_code == 200
    await age(site, issued.token.id, "last_seen_at", 1801)
    assert (await browser.get(API)).status_code == 401
    assert (await browser.get(API)).status_code == 401, "asking did not count as being seen"


async def test_use_keeps_it_awake_and_is_noted_once_a_minute(site: Site) -> None:
    issued = await site.token("admin")
    browser = await site.signed_in(issued.secret)
    seen = "SELECT last_seen_at FROM admin_sessions WHERE token_id = %(id)s"
    await age(site, issued.token.id, "last_seen_at", 1700)
    old = (await site.sql(seen, id=issued.token.id)).scalar_one()
    await browser.get(API)
    noted = (await site.sql(seen, id=issued.token.id)).scalar_one()
    assert noted - old > timedelta(seconds=1690)
    await browser.get(API)
    assert (await site.sql(seen, id=issued.token.id)).scalar_one() == noted


async def test_a_short_idle_time_does_not_run_out_under_use(sites: Sites) -> None:
    site = sites(admin__session_idle="8")
    issued = await site.token("admin")
    browser = await site.signed_in(issued.secret)
    await age(site, issued.token.id, "last_seen_at", 5)
    assert (await browser.get(API)).status_code == 200
    seen = "SELECT now() - last_seen_at < interval '4 seconds' FROM admin_sessions WHERE token_id = %(id)s"
    assert (await site.sql(seen, id=issued.token.id)).scalar_one()


async def test_no_use_goes_beyond_the_absolute_end(site: Site) -> None:
    issued = await site.token("admin")
    browser = await site.signed_in(issued.secret)
    await age(site, issued.token.id, "created_at", 28_795)
    assert (await browser.get(API)).status_code == 200
    await age(site, issued.token.id, "created_at", 28_801)
    assert (await browser.get(API)).status_code == 401


async def test_the_rows_of_ended_sessions_go_and_living_ones_stay(site: Site) -> None:
    tokens = [await site.token("viewer", name) for name in ("lives", "idle", "old", "out")]
    lives, idle, old, out = [await site.signed_in(one.secret) for one in tokens]
    await age(site, tokens[1].token.id, "last_seen_at", 1801)
    await age(site, tokens[2].token.id, "created_at", 28_801)
    await out.post("/admin/logout")
    await site.runtime.callers.sessions.clear()
    left = await site.sql(
        "SELECT token_id FROM admin_sessions WHERE token_id = ANY(%(ids)s)",
        ids=[one.token.id for one in tokens],
    )
    assert [row.token_id for row in left] == [tokens[0].token.id]
    assert (await lives.get(API)).status_code == 200
    assert (await idle.get(API)).status_code == (await old.get(API)).status_code == 401


# What a session stands on -----------------------------------------------------------------------------------


async def test_revoking_a_token_ends_its_sessions_everywhere_at_once(sites: Sites) -> None:
    here, there = sites(), sites()
    issued = await here.token("admin")
    browsers = [await site.signed_in(issued.secret) for site in (here, there)]
    bystander = await there.signed_in((await here.token("admin")).secret)
    headers = {"authorization": f"Bearer {BOOTSTRAP}"}
    await here.browser().post(f"/admin/api/admin-tokens/{issued.token.id}/revoke", headers=headers)
    assert [(await browser.get(API)).status_code for browser in browsers] == [401, 401]
    assert (await bystander.get(API)).status_code == 200


async def test_a_session_begun_while_its_token_is_revoked_is_dead(site: Site) -> None:
    issued = await site.token("admin")
    browser = await site.signed_in(issued.secret)
    await site.sql("UPDATE admin_tokens SET revoked_at = now() WHERE id = %(id)s", id=issued.token.id)
    assert (await browser.get(API)).status_code == 401


async def test_sessions_of_the_bootstrap_token_end_with_it(sites: Sites) -> None:
    value = cookie_of_jar(await sites().signed_in(BOOTSTRAP))
    for token, status in ((BOOTSTRAP, 200), (OTHER_BOOTSTRAP, 401), ("", 401), (BOOTSTRAP, 200)):
        process = sites(admin__bootstrap_token=token)
        answer = await process.browser(cookie=f"pxg_session={value}").get(API)
        assert answer.status_code == status, token


async def test_sessions_of_the_bootstrap_token_live_through_a_new_pepper(sites: Sites) -> None:
    from_old = cookie_of_jar(await sites().signed_in(BOOTSTRAP))
    process = sites(secrets__key_pepper="nW3pP8eR5qX1vZ7yT4uS9mK2jL6hG0fD,kT5vN8xQ2mB7rY4wL9hD3cJ6gP1sZ0aU")
    assert (await process.browser(cookie=f"pxg_session={from_old}").get(API)).status_code == 200


# Other sites ------------------------------------------------------------------------------------------------

FOREIGN = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"origin": "https://evil.example.com"},
    {"origin": "null"},
]
OWN = [{"sec-fetch-site": "same-origin"}, {"origin": "http://gateway.test"}, {}]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_another_site_changes_nothing(site: Site, headers: dict[str, str]) -> None:
    browser = await site.signed_in((await site.token("admin")).secret)
    before = site.count("cross_site")
    for method, path in (
        ("POST", "/admin/api/teams"),
        ("PATCH", "/admin/api/teams/x"),
        ("PUT", "/admin/api/teams/x/quotas/day"),
        ("DELETE", "/admin/api/upstream-keys/x"),
        ("POST", "/admin/logout"),
        ("POST", "/admin/login"),
    ):
        answer = await browser.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "cross_site"), path
    assert site.count("cross_site") == before + 6
    assert (await browser.get(API, headers=headers)).status_code == 200, "a link from elsewhere works"


@pytest.mark.parametrize("headers", OWN)
async def test_our_own_pages_may(site: Site, headers: dict[str, str]) -> None:
    browser = site.browser()
    token = (await site.token("admin")).secret
    assert (await browser.post("/admin/login", data={"token": token}, headers=headers)).status_code == 303
    body = {"name": f"Own {len(headers)} {headers}", "unlimited": True}
    assert (await browser.post("/admin/api/teams", json=body, headers=headers)).status_code == 201


async def test_a_bearer_token_needs_no_such_check_and_wins_over_the_cookie(site: Site) -> None:
    viewer, admin = await site.token("viewer"), await site.token("admin")
    browser = await site.signed_in(viewer.secret)
    headers = {"sec-fetch-site": "cross-site", "authorization": f"Bearer {admin.secret}"}
    made = await browser.post(
        "/admin/api/teams", json={"name": "By bearer", "unlimited": True}, headers=headers
    )
    assert made.status_code == 201
    assert await entries(site, "team.create", f"admin-token:{admin.token.id}") == 1
    wrong = await browser.get(API, headers={"authorization": "Bearer nonsense"})
    assert wrong.status_code == 401, "a bad header is not made good by a cookie"


# The form ---------------------------------------------------------------------------------------------------


async def test_a_wrong_token_gets_the_form_and_the_reason(site: Site) -> None:
    answer = await site.browser("192.0.2.77").post(
        "/admin/login", data={"token": "pxa_wrong", "next": "/admin/teams"}
    )
    assert answer.status_code == 401
    assert 'role="alert"' in answer.text
    assert 'value="/admin/teams"' in answer.text
    assert "pxa_wrong" not in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"token": "x"}', "application/json", 415),
        (b"token=x", "text/plain", 415),
        (b"token=x&token=y", "application/x-www-form-urlencoded", 400),
        (b"token=" + b"x" * 8192, "application/x-www-form-urlencoded", 413),
        (b"\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=1" % number for number in range(20)), "application/x-www-form-urlencoded", 400),
        (b"", "application/x-www-form-urlencoded; charset=utf-8", 401),
        (b"token=%ff%00", "application/x-www-form-urlencoded", 400),
    ],
)
async def test_odd_forms(site: Site, content: bytes, kind: str, status: int) -> None:
    answer = await site.browser("192.0.2.78").post(
        "/admin/login", content=content, headers={"content-type": kind}
    )
    assert answer.status_code == status


async def test_a_team_key_signs_nobody_in(site: Site) -> None:
    answer = await site.browser("192.0.2.79").post(
        "/admin/login", data={"token": "pxg_0123456789_abcdefghijklmnopqrstuvwxyzABCDEF01FMwt"}
    )
    assert answer.status_code == 401


async def test_without_the_database_the_pages_say_so(sites: Sites) -> None:
    site = sites(database__url="postgresql+psycopg://nobody@127.0.0.1:1/none")
    answer = await site.browser().post("/admin/login", data={"token": BOOTSTRAP})
    assert answer.status_code == 503
    assert 'name="token"' in answer.text
    browser = site.browser(cookie=f"pxg_session={'A' * 43}")
    front = await browser.get("/admin/")
    assert front.status_code == 503
    assert "database_unavailable" in front.text
    assert (await browser.get(API)).status_code == 503
