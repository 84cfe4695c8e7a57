"""Single sign-on against a provider on this machine: the whole round, and every answer that must not be believed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from joserfc.jwk import ECKey

from gateway.admin.oidc_tokens import LEEWAY
from tests.fakes import oidc_provider as fake
from tests.fakes.oidc_provider import CLIENT, SECRET, FakeProvider
from tests.integration.sign_in.conftest import Site, Sites

API = "/admin/api/status"
START = "/admin/oidc/start"


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with fake.oidc_provider() as found:
        yield found


@pytest.fixture
def gateways(sites: Sites, provider: FakeProvider) -> Callable[..., Site]:
    def make(**flags: str) -> Site:
        settings = {
            "server__public_url": "https://gateway.test",
            "admin__oidc_issuer": provider.base,
            "admin__oidc_client_id": CLIENT,
            "admin__oidc_client_secret": SECRET,
            "admin__oidc_admin_groups": "platform,owners",
            "admin__oidc_viewer_groups": "engineering",
        }
        return sites(**{**settings, **flags})

    return make


@pytest.fixture
async def site(gateways: Callable[..., Site]) -> Site:
    made = gateways()
    await made.sql("DELETE FROM sign_in_attempts")
    return made


async def back(browser: httpx.AsyncClient, provider: FakeProvider, start: str = START) -> httpx.Response:
    """The round: to the provider and back."""
    answer = await browser.get(start)
    assert answer.status_code == 303, answer.text
    query = provider.authorize(answer.headers["location"])
    return await browser.get(f"/admin/oidc/callback?{query}")


async def test_somebody_of_a_group_is_signed_in(site: Site, provider: FakeProvider) -> None:
    browser = site.browser()
    assert START in (await browser.get("/admin/login")).text
    answer = await back(browser, provider, f"{START}?next=/admin/teams")
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/teams")
    names = {cookie.name: cookie for cookie in browser.cookies.jar}
    assert set(names) == {"__Host-pxg_session"}, "the round's cookie is gone"
    front = (await browser.get("/admin/")).text
    assert "Ada Lovelace &lt;ada@example.com&gt;" in front
    made = await browser.post("/admin/api/teams", json={"name": "By Ada", "unlimited": True})
    assert made.status_code == 201
    found = await site.sql("SELECT DISTINCT actor FROM audit_entries WHERE action = 'team.create'")
    assert found.scalars().all() == ["oidc:ada-1815"]
    foreign = await browser.post("/admin/api/teams", headers={"sec-fetch-site": "cross-site"})
    assert foreign.status_code == 403


async def test_what_the_browser_is_sent_with(site: Site, provider: FakeProvider) -> None:
    browser = site.browser()
    first, second = [await browser.get(START) for _ in range(2)]
    queries = [dict(parse_qsl(urlsplit(one.headers["location"]).query)) for one in (first, second)]
    for name in ("state", "nonce", "code_challenge"):
        assert queries[0][name] != queries[1][name]
    assert queries[0]["redirect_uri"] == "https://gateway.test/admin/oidc/callback"
    cookie = first.headers["set-cookie"]
    assert cookie.startswith("__Host-pxg_sign_in=")
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=600")
    assert provider.asked.count("/.well-known/openid-configuration") == 1, "it is kept"


@pytest.mark.parametrize(
    ("groups", "role"),
    [(["engineering"], "viewer"), (["engineering", "owners"], "admin"), ("owners", "admin")],
)
async def test_groups_give_the_role(site: Site, provider: FakeProvider, groups: object, role: str) -> None:
    provider.claims = {"groups": groups}
    browser = site.browser()
    assert (await back(browser, provider)).status_code == 303
    assert f'<span class="role">{role}</span>' in (await browser.get("/admin/")).text
    status = (await browser.post("/admin/api/teams", json={})).status_code
    assert status == (400 if role == "admin" else 403)


@pytest.mark.parametrize("groups", [["sales"], [], None, {"platform": True}])
async def test_without_a_group_there_is_no_session_but_a_reason(
    site: Site, provider: FakeProvider, groups: object
) -> None:
    provider.claims = {"groups": groups}
    browser = site.browser()
    answer = await back(browser, provider)
    assert answer.status_code == 403
    assert "role admin: platform, owners; role viewer: engineering" in answer.text
    assert (await browser.get(API)).status_code == 401
    assert site.count("no_role") == 1


async def test_groups_may_come_with_the_userinfo(site: Site, provider: FakeProvider) -> None:
    provider.claims, provider.userinfo = {"groups": None}, {"sub": "ada-1815", "groups": ["platform"]}
    assert (await back(site.browser(), provider)).status_code == 303
    provider.userinfo = {"sub": "mallory", "groups": ["platform"]}
    assert (await back(site.browser(), provider)).status_code == 401


async def test_another_claim_and_elliptic_curves(
    gateways: Callable[..., Site], provider: FakeProvider
) -> None:
    provider.key = ECKey.generate_key("P-256", {"kid": "curve"}, private=True)
    provider.listed = [provider.key]
    provider.claims = {"groups": None, "realm_access": {"roles": ["platform"]}}
    site = gateways(admin__oidc_groups_claim="realm_access.roles")
    assert (await back(site.browser(), provider)).status_code == 303


# What must not be believed ----------------------------------------------------------------------------------

NOW = int(time.time())
LIES: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://id.example.com"},
    "another client": {"aud": "somebody-else"},
    "several clients and not for us": {"aud": ["a", "b"]},
    "several clients, issued to another": {"aud": [CLIENT, "b"], "azp": "b"},
    "expired": {"exp": NOW - LEEWAY - 5},
    "not yet": {"nbf": NOW + LEEWAY + 3600},
    "another nonce": {"nonce": "other"},
    "no nonce": {"nonce": None},
    "no expiry": {"exp": None},
    "an odd expiry": {"exp": "soon"},
    "nobody": {"sub": None},
    "an empty name": {"sub": ""},
    "a name that breaks lines": {"sub": "a\nb"},
    "a name that is no text": {"sub": 7},
    "another access token": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_wrong_claim_signs_nobody_in(site: Site, provider: FakeProvider, lie: str) -> None:
    provider.claims = LIES[lie]
    await refused(site, provider)


@pytest.mark.parametrize("sign", [fake.unsigned, fake.signed_with_the_public_key, fake.signed_by_another])
async def test_a_wrong_signature_signs_nobody_in(
    site: Site, provider: FakeProvider, sign: Callable[[FakeProvider, dict[str, Any]], str]
) -> None:
    provider.sign = sign
    await refused(site, provider)


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "é", "e30.e30.", "e30", "W10.W10.x"])
async def test_what_is_no_token_signs_nobody_in(site: Site, provider: FakeProvider, token: str) -> None:
    provider.sign = lambda *_: token
    await refused(site, provider)


async def refused(site: Site, provider: FakeProvider) -> None:
    browser = site.browser()
    answer = await back(browser, provider)
    assert answer.status_code == 401, answer.text
    assert "could not be verified" in answer.text
    assert "__Host-pxg_session" not in answer.headers["set-cookie"]
    assert (await browser.get(API)).status_code == 401
    assert site.count("refused") == 1


# State ------------------------------------------------------------------------------------------------------


async def test_another_state_ends_it(site: Site, provider: FakeProvider) -> None:
    browser = site.browser()
    query = provider.authorize((await browser.get(START)).headers["location"])
    given = dict(parse_qsl(query))
    for wrong in ({**given, "state": "x"}, {**given, "state": "é"}, {"code": given["code"]}):
        answer = await browser.get(f"/admin/oidc/callback?{urlencode(wrong)}")
        assert answer.status_code == 400
        assert "Start again" in answer.text


async def test_an_answer_for_another_browser_is_not_taken(site: Site, provider: FakeProvider) -> None:
    """An attacker's own answer, put before somebody else: they would be signed in as the attacker."""
    query = provider.authorize((await site.browser().get(START)).headers["location"])
    victim = site.browser()
    assert (await victim.get(f"/admin/oidc/callback?{query}")).status_code == 400
    await victim.get(START)
    assert (await victim.get(f"/admin/oidc/callback?{query}")).status_code == 400


async def test_an_answer_is_good_once_at_any_process(
    gateways: Callable[..., Site], provider: FakeProvider
) -> None:
    here, there = gateways(), gateways()
    await here.sql("DELETE FROM sign_in_attempts")
    browser = here.browser()
    started = await browser.get(START)
    query = provider.authorize(started.headers["location"])
    kept = started.headers["set-cookie"].partition(";")[0]
    assert (await there.browser(cookie=kept).get(f"/admin/oidc/callback?{query}")).status_code == 303
    state = dict(parse_qsl(query))["state"]
    provider.codes["fresh"] = dict(parse_qsl(urlsplit(started.headers["location"]).query))
    for site in (here, there):
        again = urlencode({"state": state, "code": "fresh"})
        answer = await site.browser(cookie=kept).get(f"/admin/oidc/callback?{again}")
        assert answer.status_code == 401, "even with a code the provider would take"
    assert "fresh" in provider.codes, "the provider was not asked"


async def test_it_has_to_come_back_in_time(site: Site, provider: FakeProvider) -> None:
    browser = site.browser()
    query = provider.authorize((await browser.get(START)).headers["location"])
    clock = site.runtime.oidc.clock
    late = Ahead(timedelta(seconds=601))
    object.__setattr__(site.runtime.oidc, "clock", late)
    assert (await browser.get(f"/admin/oidc/callback?{query}")).status_code == 400
    object.__setattr__(site.runtime.oidc, "clock", clock)


class Ahead:
    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return datetime.now(UTC) + self._by

    def monotonic(self) -> float:
        return time.monotonic() + self._by.total_seconds()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"error": "access_denied"}, 403),
        ({"error": "<script>"}, 403),
        ({"iss": "https://other.example.com"}, 401),
        ({"code": ""}, 401),
        ({"code": "stolen"}, 401),
    ],
)
async def test_what_else_comes_back(
    site: Site, provider: FakeProvider, change: dict[str, str], status: int
) -> None:
    browser = site.browser()
    given = dict(parse_qsl(provider.authorize((await browser.get(START)).headers["location"])))
    answer = await browser.get(f"/admin/oidc/callback?{urlencode({**given, **change})}")
    assert answer.status_code == status
    assert "<script>" not in answer.text


async def test_failed_answers_count_as_attempts(site: Site, provider: FakeProvider) -> None:
    provider.sign = fake.unsigned
    for _ in range(10):
        assert (await back(site.browser("198.51.100.30"), provider)).status_code == 401
    limited = await back(site.browser("198.51.100.30"), provider)
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) > 800


# The provider's side ----------------------------------------------------------------------------------------


async def test_new_keys_of_the_provider_are_read_once(site: Site, provider: FakeProvider) -> None:
    assert (await back(site.browser(), provider)).status_code == 303
    provider.key = fake.new_key("second")
    provider.listed.append(provider.key)
    assert (await back(site.browser(), provider)).status_code == 303
    assert provider.asked.count("/keys") == 2
    provider.key = fake.new_key("third, listed nowhere")
    assert (await back(site.browser(), provider)).status_code == 401
    assert provider.asked.count("/keys") == 3, "once a sign-in, not for ever"


async def test_a_provider_that_is_down_stops_only_signing_in_with_it(
    site: Site, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.down = True
    answer = await site.browser().get(START)
    assert answer.status_code == 503
    assert "sign in with an admin token" in answer.text
    browser = await site.signed_in((await site.token("viewer")).secret)
    assert (await browser.get(API)).status_code == 200
    provider.down = False
    asked = len(provider.asked)
    assert (await site.browser().get(START)).status_code == 503, "remembered for a moment"
    assert len(provider.asked) == asked
    documents = vars(site.runtime.oidc.known())["_documents"]
    monkeypatch.setattr(documents, "_clock", Ahead(timedelta(seconds=11)))
    known = site.browser()
    query = provider.authorize((await known.get(START)).headers["location"])
    provider.down = True
    assert (await known.get(f"/admin/oidc/callback?{query}")).status_code == 503
    failures = await site.sql("SELECT coalesce(sum(failures), 0) FROM sign_in_attempts")
    assert failures.scalar_one() == 0, "that is nobody's failure"


async def test_a_provider_that_cannot_be_reached_is_the_same(
    gateways: Callable[..., Site], provider: FakeProvider
) -> None:
    site = gateways(admin__oidc_issuer="http://127.0.0.1:9")
    assert (await site.browser().get(START)).status_code == 503


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://id.example.com"},
        {"issuer": None},
        {"token_endpoint": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": "ftp://id.example.com/keys"},
    ],
)
async def test_a_document_that_is_not_the_provider_s(
    site: Site, provider: FakeProvider, discovery: dict[str, Any]
) -> None:
    provider.discovery = discovery
    assert (await site.browser().get(START)).status_code == 503


async def test_a_client_the_provider_does_not_know_is_our_fault(
    gateways: Callable[..., Site], provider: FakeProvider
) -> None:
    site = gateways(admin__oidc_client_secret="another")
    assert (await back(site.browser(), provider)).status_code == 503


async def test_sessions_end_when_the_provider_is_taken_away(
    gateways: Callable[..., Site], sites: Sites, provider: FakeProvider
) -> None:
    browser = gateways().browser()
    await back(browser, provider)
    [value] = [cookie.value for cookie in browser.cookies.jar]
    without = sites(server__public_url="https://gateway.test")
    for site, status in ((gateways(), 200), (without, 401)):
        answer = await site.browser(cookie=f"__Host-pxg_session={value}").get(API)
        assert answer.status_code == status


async def test_without_a_provider_there_is_nothing(sites: Sites) -> None:
    site = sites()
    for path in (START, "/admin/oidc/callback"):
        assert (await site.browser().get(path)).status_code == 404
    assert "single sign-on" not in (await site.browser().get("/admin/login")).text
