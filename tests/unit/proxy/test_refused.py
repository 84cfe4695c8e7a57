"""What is kept of a refused request: the facts, and nothing a client may have hidden in a field."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from uuid import uuid4

import pytest
from msgspec import structs

from gateway import errors
from gateway.access.key_format import TEAM_KEY, make
from gateway.access.refusals import Refusal
from gateway.errors import GatewayError
from gateway.proxy.exchange import Exchange, RequestBody
from gateway.proxy.generation import Generation, Operation
from gateway.proxy.refused import refusal_of
from tests.fakes.principals import TEAM_ID, principal

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GENERATION = Generation(
    model="gemini-2.5-flash-image",
    images=2,
    sizes=("2048x1024",),
    quality="a prompt?",
    seconds=None,
    input_images=0,
)
QUOTA = errors.insufficient_quota("no room", {"quota": {"limit": "1"}})


def exchange(error: GatewayError | None, **fields: Any) -> Exchange:
    plain = Exchange("r", 0.0, ip_address("10.0.0.1"), (), principal=principal(), refused=error)
    return structs.replace(plain, **fields)


def kept(found: Exchange, status: int = 402) -> Refusal | None:
    return refusal_of(found, "POST", "/v1/images/generations", status, NOON)


def body(**fields: Any) -> RequestBody:
    raw: Any = None
    return RequestBody(raw, b"application/json", GENERATION._replace(**fields), b"f")


def test_the_facts_of_a_refusal_are_kept() -> None:
    found = kept(exchange(QUOTA, body=body(), operation=Operation.IMAGES_GENERATIONS))
    assert found is not None
    assert (found.team_id, found.key_id, found.status, found.reason) == (
        TEAM_ID,
        "0123456789",
        402,
        "quota_exceeded",
    )
    assert (found.route, found.operation, found.model) == (
        "POST /v1/images/generations", "images.generations", "gemini-2.5-flash-image"
    )  # fmt: skip
    assert found.detail == {"quota": {"limit": "1"}, "asked": {"images": 2, "size_class": "2k"}}
    assert (found.message, found.client, found.at) == ("no room", "10.0.0.1", NOON)


def test_what_is_answered_well_is_not_kept() -> None:
    assert kept(exchange(None), 200) is None


def test_a_call_that_was_sent_is_in_the_ledger_instead() -> None:
    assert kept(exchange(errors.upstream_error("odd"), attempts=1), 502) is None


@pytest.mark.parametrize("model", ["a cat in the rain", "x" * 101, "-x", "a\nb"])
def test_a_model_that_is_no_name_is_not_kept(model: str) -> None:
    error = errors.forbidden(f"This key may not use the model '{model}'.", "model_not_allowed")
    found = kept(exchange(error, body=body(model=model)), 403)
    assert found is not None
    assert found.model is None
    assert found.message == "This key may not use the model '…'."


def test_keys_and_control_characters_are_taken_out_of_messages() -> None:
    key = make(TEAM_KEY).text
    found = kept(exchange(errors.bad_request(f"odd \0 {key} sk-abcdefgh1234")), 400)
    assert found is not None
    assert found.message == "odd   … …"


def test_waits_are_kept() -> None:
    found = kept(exchange(errors.rate_limited("wait", "requests_per_minute", 1.5)), 429)
    assert found is not None
    assert found.detail == {"retry_after_ms": 1500}
    found = kept(exchange(errors.overloaded("full")), 503)
    assert found is not None
    assert found.detail == {"retry_after": 1}


def test_a_repeat_is_kept_without_words_that_may_be_pixapis() -> None:
    hold = str(uuid4())
    replayed = kept(exchange(None, repeated=hold), 200)
    assert replayed is not None
    assert (replayed.reason, replayed.message, replayed.detail) == ("replayed", None, {"repeats": hold})
    failed = kept(exchange(errors.upstream_error("a prompt, quoted by Pixapi"), repeated=hold), 502)
    assert failed is not None
    assert (failed.reason, failed.message) == ("upstream_error", None)


def stranger(*authorization: bytes, error: GatewayError | None = None) -> Refusal | None:
    headers = tuple((b"authorization", value) for value in authorization)
    return kept(exchange(error or errors.unauthenticated(), principal=None, headers=headers), 401)


def test_a_key_that_was_not_accepted_is_known_by_its_public_id() -> None:
    key = make(TEAM_KEY)
    found = stranger(b"Bearer " + key.text.encode())
    assert found is not None
    assert (found.team_id, found.key_id, found.detail) == (None, key.public_id, {"key": "not accepted"})
    assert key.text not in repr(found)


@pytest.mark.parametrize(
    ("authorization", "problem"),
    [
        ((), "missing"),
        ((b"Bearer a", b"Bearer b"), "several"),
        ((b"Basic abc",), "no bearer token"),
        ((b"Bearer pxg_short",), "malformed"),
    ],
)
def test_what_is_no_key_is_kept_by_what_is_wrong_with_it(
    authorization: tuple[bytes, ...], problem: str
) -> None:
    found = stranger(*authorization)
    assert found is not None
    assert (found.key_id, found.detail) == (None, {"key": problem})


def test_who_shows_no_key_and_is_refused_for_something_else_is_not_kept() -> None:
    assert stranger(error=errors.not_found()) is None
    found = stranger(b"Bearer " + make(TEAM_KEY).text.encode(), error=errors.not_found())
    assert found is not None
    assert found.reason == "not_found"
