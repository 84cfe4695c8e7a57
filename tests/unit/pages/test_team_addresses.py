"""Where a sign-in with a team key leads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pages.team_addresses import FRONT, PAGES, next_page


@pytest.mark.parametrize("path", sorted(PAGES))
def test_pages_of_the_team_are_gone_to_with_their_query(path: str) -> None:
    assert next_page(path) == path
    assert next_page(f"{path}?range=7d&by=key&after=a-b_c") == f"{path}?range=7d&by=key&after=a-b_c"


@pytest.mark.parametrize(
    "path",
    [
        None,
        "",
        "/",
        "/gateway",
        "/gateway/login",
        "/gateway/logout",
        "/gateway/account",
        "/admin/",
        "//evil.example.com/gateway/",
        "https://evil.example.com/gateway/",
        "/gateway/\r\nset-cookie: a=b",
        "/gateway/?x=\n",
        "/gateway/team/../x",
        "/gateway/?x=" + "a" * 1000,
    ],
)
def test_anything_else_is_the_first_page(path: str | None) -> None:
    assert next_page(path) == FRONT


@given(st.text())
def test_nothing_leads_away(text: str) -> None:
    for asked in (text, f"/gateway/{text}", f"/gateway/?{text}"):
        found = next_page(asked)
        assert found.partition("?")[0] in PAGES
        assert found.isascii()
        assert not any(sign in found for sign in "\r\n\\ \"'<>")
