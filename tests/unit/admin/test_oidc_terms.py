"""Which role groups give, what people are called, and what a browser carries to the provider and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.key_format import Peppers
from gateway.admin import oidc_round
from gateway.admin.oidc_terms import OidcOptions, groups_of, role_of, shown_name

OPTIONS = OidcOptions(
    issuer="https://id.example.com",
    client_id="c",
    client_secret="hidden",
    scopes=("openid",),
    groups_claim="groups",
    admin_groups=("ops", "both"),
    viewer_groups=("eng", "both"),
    redirect_uri="https://gateway.example.com/admin/oidc/callback",
)
OLD, NEW = "pepper-of-the-round-tests-0123456789", "another-of-the-round-tests-987654321"


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        ([], None),
        (["sales"], None),
        (["eng"], "viewer"),
        (["ops"], "admin"),
        (["eng", "ops"], "admin"),
        (["both"], "admin"),
        (["OPS"], None),
        (["ops "], None),
    ],
)
def test_the_most_a_group_allows_counts(groups: list[str], role: str | None) -> None:
    assert role_of(groups, OPTIONS) == role


@given(st.lists(st.text()))
def test_no_other_group_allows_anything(groups: list[str]) -> None:
    known = {*OPTIONS.admin_groups, *OPTIONS.viewer_groups}
    assert (role_of(groups, OPTIONS) is None) == (not known & set(groups))


@pytest.mark.parametrize(
    ("claims", "claim", "groups"),
    [
        ({}, "groups", None),
        ({"groups": ["a", "b"]}, "groups", ("a", "b")),
        ({"groups": "a"}, "groups", ("a",)),
        ({"groups": []}, "groups", ()),
        ({"groups": ["a", 1, None, {"x": 1}]}, "groups", ("a",)),
        ({"groups": {"a": True}}, "groups", ()),
        ({"groups": 7}, "groups", ()),
        ({"realm_access": {"roles": ["a"]}}, "realm_access.roles", ("a",)),
        ({"realm_access": ["roles"]}, "realm_access.roles", None),
        ({"https://example.com/groups": ["a"]}, "https://example.com/groups", ("a",)),
    ],
)
def test_groups_are_read_from_what_providers_send(
    claims: dict[str, Any], claim: str, groups: tuple[str, ...] | None
) -> None:
    assert groups_of(claims, claim) == groups


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"sub": "1", "name": "Ada", "email": "ada@example.com"}, "Ada <ada@example.com>"),
        ({"sub": "1", "preferred_username": "ada"}, "ada"),
        ({"sub": "1", "email": "ada@example.com"}, "ada@example.com"),
        ({"sub": "1", "name": "  "}, "1"),
        ({"sub": "1", "name": ["Ada"]}, "1"),
        ({"sub": "1", "name": "A\u202eda\n\x00"}, "Ada"),
    ],
)
def test_people_are_called_what_the_provider_says(claims: dict[str, Any], name: str) -> None:
    assert shown_name(claims) == name
    assert len(shown_name({**claims, "name": "x" * 1000})) == 200


def test_the_secret_is_in_no_text() -> None:
    assert "hidden" not in repr(OPTIONS)


# The round --------------------------------------------------------------------------------------------------


def test_a_round_comes_back_as_it_went() -> None:
    one = oidc_round.begin("/admin/teams", 1000.0)
    value = oidc_round.pack(one, Peppers([OLD]))
    assert oidc_round.unpack(value, Peppers([OLD]), 1000.0) == one
    assert oidc_round.unpack(value, Peppers([NEW, OLD]), 1599.9) == one, "a pepper may be replaced meanwhile"
    assert len({one.secrets.state, one.secrets.nonce, one.secrets.verifier}) == 3
    assert 43 <= len(one.secrets.verifier) <= 128


def test_it_ends_after_ten_minutes() -> None:
    value = oidc_round.pack(oidc_round.begin("/admin/", 1000.0), Peppers([OLD]))
    assert oidc_round.unpack(value, Peppers([OLD]), 1600.0) is None


def test_it_cannot_be_made_or_changed_by_others() -> None:
    one = oidc_round.begin("/admin/", 1000.0)
    value = oidc_round.pack(one, Peppers([OLD]))
    assert oidc_round.unpack(value, Peppers([NEW]), 1000.0) is None
    other = oidc_round.pack(replace(one, expires=9e9), Peppers([NEW]))
    text, signature = other.split(".")[0], value.split(".")[1]
    assert oidc_round.unpack(f"{text}.{signature}", Peppers([OLD]), 1000.0) is None


@given(st.text(), st.text())
def test_nonsense_is_no_round(text: str, signature: str) -> None:
    assert oidc_round.unpack(f"{text}.{signature}", Peppers([OLD]), 0.0) is None
    assert oidc_round.unpack(text, Peppers([OLD]), 0.0) is None
