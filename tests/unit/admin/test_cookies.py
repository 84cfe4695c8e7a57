"""Cookies of the sign-in pages, and where a sign-in leads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.next_page import FRONT, next_page
from gateway.pages.cookies import CookieJar, read_cookie


def test_over_https_a_cookie_belongs_to_this_very_host() -> None:
    jar = CookieJar(secure=True)
    name, value = jar.set(jar.session, "v")
    assert name == b"set-cookie"
    assert value == b"__Host-pxg_session=v; Path=/; HttpOnly; SameSite=Lax; Secure"
    assert jar.clear(jar.session)[1].startswith(b"__Host-pxg_session=; ")
    assert jar.clear(jar.session)[1].endswith(b"; Max-Age=0")


def test_over_http_it_can_still_be_set() -> None:
    jar = CookieJar(secure=False)
    assert jar.set(jar.session, "v")[1] == b"pxg_session=v; Path=/; HttpOnly; SameSite=Lax"


def test_the_cookies_have_names_of_their_own() -> None:
    jar = CookieJar(secure=True)
    names = {jar.session, jar.team_session, jar.round}
    assert len(names) == 3
    assert all(name.startswith("__Host-") for name in names)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([b"pxg_session=abc"], "abc"),
        ([b"a=1; pxg_session=abc; b=2"], "abc"),
        ([b"a=1", b"pxg_session=abc"], "abc"),
        ([b"xpxg_session=abc; pxg_session2=d"], None),
        ([b"pxg_session="], None),
        ([b"pxg_session"], None),
        ([b"pxg_session=abc; pxg_session=planted"], None),
        ([b"pxg_session=abc", b"pxg_session=abc"], None),
        ([b"__Host-pxg_session=abc"], None),
        ([b"pxg_session=a=b"], "a=b"),
        ([b"\xff\xfe; pxg_session=abc"], "abc"),
    ],
)
def test_reading(headers: list[bytes], found: str | None) -> None:
    assert read_cookie(headers, "pxg_session") == found


@pytest.mark.parametrize(
    "path", ["/admin/", "/admin/teams", "/admin/teams/a-b_c.d~e/", "/admin/requests?state=unknown&limit=20"]
)
def test_pages_of_ours_are_gone_to(path: str) -> None:
    assert next_page(path) == path


@pytest.mark.parametrize(
    "path",
    [
        None,
        "",
        "/",
        "/admin",
        "/v1/models",
        "//evil.example.com/admin/",
        "/\\evil.example.com",
        "https://evil.example.com/admin/",
        "/admin//evil.example.com",
        "/admin/../v1/models",
        "/admin/..",
        "/admin/./teams",
        "/admin/%2e%2e/x",
        "/admin/\r\nset-cookie: a=b",
        "/admin/teams\n",
        "/admin/teams#x",
        "/admin/login",
        "/admin/login?next=/admin/",
        "/admin/logout",
        "/admin/oidc/start",
        "/admin/?x=" + "a" * 1000,
    ],
)
def test_anything_else_is_the_front_page(path: str | None) -> None:
    assert next_page(path) == FRONT


@given(st.text())
def test_nothing_leads_away(path: str) -> None:
    assert next_page(path).startswith("/admin/")
    assert next_page("/admin/" + path).startswith("/admin/")
    assert "//" not in next_page("/admin/" + path).partition("?")[0]
