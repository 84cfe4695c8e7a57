"""Signing in at a served gateway: the form, the cookie, what it opens, other sites, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from gateway.access.key_format import ADMIN_TOKEN, make
from tests.e2e.harness import Gateway, gateway

API = "/admin/api/status"


@contextmanager
def browser(served: Gateway, **headers: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.base, headers=headers, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def served(database_url: str, redis_url: str) -> Iterator[Gateway]:
    with gateway(database_url, redis_url, "http://127.0.0.1:9", {"GATEWAY_LOG__FORMAT": "json"}) as found:
        yield found


def test_from_the_form_to_the_sign_out(served: Gateway) -> None:
    issued = served.call("POST", "/admin-tokens", json={"name": "Grace", "role": "admin"})
    with browser(served) as client:
        assert "form" in client.get("/admin/login").text
        answer = client.post("/admin/login", data={"token": issued["secret"]}, follow_redirects=True)
        assert answer.status_code == 200
        assert '<span>Grace</span><span class="role">admin</span>' in answer.text
        [cookie] = list(client.cookies.jar)
        assert (cookie.name, cookie.path, cookie.secure) == ("pxg_session", "/", False)
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "Lax"

        made = client.post("/admin/api/teams", json={"name": "By cookie", "unlimited": True})
        assert made.status_code == 201
        [entry] = served.call("GET", f"/audit?subject_type=team&subject_id={made.json()['id']}")["data"]
        assert entry["actor"] == f"admin-token:{issued['id']}"

        for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example.com"}):
            refused = client.post("/admin/api/teams", json={"name": "x", "unlimited": True}, headers=headers)
            assert (refused.status_code, refused.json()["error"]["reason"]) == (403, "cross_site")
        own = client.post("/admin/logout", headers={"origin": served.base})
        assert own.status_code == 303
        assert not list(client.cookies.jar)
        assert client.get(API, headers={"cookie": f"pxg_session={cookie.value}"}).status_code == 401
    assert cookie.value is not None
    assert cookie.value not in served.process.text(), "it is in no log line"
    assert issued["secret"] not in served.process.text()


def test_a_revoked_token_ends_its_session_at_once(served: Gateway) -> None:
    issued = served.call("POST", "/admin-tokens", json={"name": "leaver", "role": "viewer"})
    with browser(served) as client:
        client.post("/admin/login", data={"token": issued["secret"]})
        assert client.get(API).status_code == 200
        assert client.post("/admin/api/teams", json={}).status_code == 403
        served.call("POST", f"/admin-tokens/{issued['id']}/revoke")
        assert client.get(API).status_code == 401


def test_a_team_key_opens_its_team_s_page_until_it_is_revoked(served: Gateway) -> None:
    team = served.call("POST", "/teams", json={"name": "Studio", "quota": {"period": "month", "limit": 100}})
    issued = served.call("POST", f"/teams/{team['id']}/keys", json={"name": "laptop"})
    with browser(served) as client:
        form = client.get("/gateway/", follow_redirects=True)
        assert (form.url.path, 'name="key"' in form.text) == ("/gateway/login", True)
        page = client.post("/gateway/login", data={"key": issued["secret"]}, follow_redirects=True)
        assert (page.url.path, "100.00 left" in page.text) == ("/gateway/", True)
        [cookie] = list(client.cookies.jar)
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert client.get(API).status_code == client.get("/gateway/account").status_code == 401
        served.call("POST", f"/keys/{issued['id']}/revoke")
        assert client.get("/gateway/").status_code == 303
        again = client.post("/gateway/login", data={"key": issued["secret"]})
        assert (again.status_code, "unknown, expired or revoked" in again.text) == (401, True)
    assert cookie.value is not None
    assert cookie.value not in served.process.text(), "it is in no log line"
    assert issued["secret"] not in served.process.text()


def test_wrong_tokens_are_limited_and_counted(served: Gateway) -> None:
    wrong = make(ADMIN_TOKEN).text
    with browser(served) as client:
        assert (
            client.post("/admin/login", data={"token": "pxa_wrong"}).status_code == 401
        )  # no key: not counted
        statuses = [client.post("/admin/login", data={"token": wrong}).status_code for _ in range(12)]
        assert statuses == [401] * 10 + [429] * 2
        limited = client.post("/admin/login", data={"token": wrong})
        assert 800 < int(limited.headers["retry-after"]) <= 900
        assert client.get("/admin/login").status_code == 200
    page = served.admin.get("/metrics").text
    assert 'gateway_sign_ins_total{result="refused"} 11.0' in page
    assert 'gateway_sign_ins_total{result="limited"} 3.0' in page


def test_behind_https_the_cookie_is_secure(database_url: str, redis_url: str) -> None:
    flags = {"GATEWAY_SERVER__PUBLIC_URL": "https://gateway.example.com"}
    with gateway(database_url, redis_url, "http://127.0.0.1:9", flags) as served, browser(served) as client:
        token = served.environment["GATEWAY_ADMIN__BOOTSTRAP_TOKEN"]
        # As a proxy that ends TLS passes it on, with a Host of its own.
        answer = client.post(
            "/admin/login", data={"token": token}, headers={"origin": "https://gateway.example.com"}
        )
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-pxg_session=")
        assert {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        headers = {"cookie": cookie.partition(";")[0]}
        assert client.get(API, headers=headers).status_code == 200
