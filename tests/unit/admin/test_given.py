"""Forms and the admin API: what was typed becomes a body, a refusal goes back to its field."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway import errors
from gateway.admin.pages.given import Kind, Typed, body_of, problems_of

KINDS: dict[str, Kind] = {
    "name": "kept",
    "note": "text",
    "most": "count",
    "limit": "credits",
    "models": "list",
    "enforce": "tick",
}


def test_what_was_typed_becomes_a_body() -> None:
    form = {"name": "x", "note": "", "most": "12", "limit": "1,000.5", "models": "a, b\nc", "enforce": "1"}
    assert body_of(form, KINDS) == {
        "name": "x",
        "note": None,
        "most": 12,
        "limit": Decimal("1000.5"),
        "models": ["a", "b", "c"],
        "enforce": True,
    }
    assert body_of({}, KINDS) == {"note": None, "most": None, "limit": None, "models": None, "enforce": False}


@pytest.mark.parametrize("text", ["a hundred", "NaN", "Infinity", "1e99", "--1", "１２"])
def test_what_is_no_number_stays_text(text: str) -> None:
    body = body_of({"most": text, "limit": text if text != "１２" else "x"}, KINDS)
    assert isinstance(body["most"], str)
    assert isinstance(body["limit"], str)


def test_a_refusal_goes_back_to_its_fields() -> None:
    error = errors.bad_request("name: required; quota.limit: must be a number; slug: taken", "invalid_fields")
    found = problems_of(error, ["name", "limit"])
    assert found.of("name") == "required"
    assert found.of("limit") == "must be a number"
    assert found.of("note") == ""
    assert found.others == ("slug: taken",)
    taken = errors.conflict("There is a team with this slug.", "slug_taken")
    assert problems_of(taken, ["name"]).others == ("There is a team with this slug.",)
    with pytest.raises(errors.GatewayError):
        problems_of(errors.not_found(), ["name"])


def test_a_field_that_was_not_sent_is_shown_empty() -> None:
    assert Typed({"a": "b"})["c"] == ""
