"""What replies mean for money, over all statuses and bodies, and that no reply passes our key on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.outcomes import (
    KEY_REFUSED_CODES,
    PixapiError,
    Trouble,
    Verdict,
    classify,
    is_model_list,
    not_sent,
    read_error,
    scrub,
    unknown,
)

SECRET = "sk_live_0123456789abcdefghijklmnop"
NUMERIC = b'{"error":{"code":400,"message":"m","type":"invalid_request_error"}}'
NAMED = b'{"error":{"code":"prompt_rejected","message":"m","request_id":"req_9"}}'
NOT_PIXAPI = [
    b"", b"null", b"[]", b"<html>502 Bad Gateway</html>", b"upstream connect error", b'{"message":"m"}',
    b'{"error":"m"}', b'{"error":{"message":"m"}}', b'{"error":{"code":400}}', b'{"error":{"code":null,"message":"m"}}',
    b'{"error":{"code":true,"message":"m"}}', b'{"error":{"code":400,"message":1}}',
    b'{"error":{"code":400,"message":"m"}', b'{"error":{"code":400,"message":"\xff"}}',
    b"\xff", b"[" * 100_000, b'[{"error":{"code":400,"message":"m"}}]',
]  # fmt: skip
BODIES = st.sampled_from([NUMERIC, NAMED, *NOT_PIXAPI]) | st.binary(max_size=60)


def error_body(code: object, message: str = "m", **more: Any) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, **more}}).encode()


@given(st.integers(100, 599), BODIES)
def test_executed_perhaps_only_where_the_contract_says(status: int, body: bytes) -> None:
    verdict = classify(status, body, None, SECRET).verdict
    with_error = read_error(body) is not None
    if 200 <= status < 300:
        assert verdict is Verdict.ANSWERED
    elif 300 <= status < 400 or (with_error and (400 <= status < 500 or status in (500, 503))):
        assert not verdict.may_have_executed
    elif status >= 500 or status < 200:
        assert verdict is Verdict.UNKNOWN


@given(st.integers(300, 599), BODIES)
def test_what_is_not_answered_has_an_error_or_concerns_our_key(status: int, body: bytes) -> None:
    outcome = classify(status, body, None, SECRET)
    assert outcome.verdict is not Verdict.ANSWERED
    assert (outcome.error is None) is outcome.verdict.concerns_our_key
    if outcome.verdict.may_have_executed:
        assert outcome.error is not None
        assert (outcome.error.type, outcome.error.retry) == ("upstream_outcome_unknown", False)


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (401, b"", Verdict.KEY_REFUSED),
        (401, NUMERIC, Verdict.KEY_REFUSED),
        (402, b"", Verdict.KEY_EXHAUSTED),
        (402, NUMERIC, Verdict.KEY_EXHAUSTED),
        (400, error_body("insufficient_credits"), Verdict.KEY_EXHAUSTED),
        (403, error_body("insufficient_credits"), Verdict.KEY_EXHAUSTED),
        (429, error_body("insufficient_credits"), Verdict.KEY_EXHAUSTED),
        (500, error_body("insufficient_credits"), Verdict.KEY_EXHAUSTED),
        (502, error_body("insufficient_credits"), Verdict.UNKNOWN),
        (429, b"", Verdict.THROTTLED),
        (429, error_body("rate_limited"), Verdict.THROTTLED),
        *((403, error_body(code), Verdict.KEY_REFUSED) for code in sorted(KEY_REFUSED_CODES)),
        (403, NAMED, Verdict.REJECTED),
        (403, NUMERIC, Verdict.REJECTED),
        (400, error_body("unauthorized"), Verdict.REJECTED),
        (404, NUMERIC, Verdict.REJECTED),
        (408, NUMERIC, Verdict.REJECTED),
        (408, b"", Verdict.UNKNOWN),
        (409, NUMERIC, Verdict.REJECTED),
        (413, b"<html>", Verdict.REJECTED),
        (500, NUMERIC, Verdict.REJECTED),
        (503, NAMED, Verdict.REJECTED),
        (500, b"", Verdict.UNKNOWN),
        (503, b"", Verdict.UNKNOWN),
        (502, NUMERIC, Verdict.UNKNOWN),
        (504, NAMED, Verdict.UNKNOWN),
        (501, NUMERIC, Verdict.UNKNOWN),
        (307, b"", Verdict.REJECTED),
        (204, b"", Verdict.ANSWERED),
    ],
)
def test_verdicts(status: int, body: bytes, verdict: Verdict) -> None:
    assert classify(status, body, None, SECRET).verdict is verdict


def test_a_429_keeps_its_retry_after() -> None:
    assert classify(429, b"", 12.0, SECRET).retry_after == 12.0


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, NUMERIC, (400, "invalid_request_error", "rejected_by_pixapi", "m", False)),
        (422, NAMED, (422, "invalid_request_error", "prompt_rejected", "m", False)),
        (403, NAMED, (403, "permission_error", "prompt_rejected", "m", False)),
        (404, error_body("model_not_found"), (404, "not_found_error", "model_not_found", "m", False)),
        (404, error_body(404, type="odd"), (404, "odd", "rejected_by_pixapi", "m", False)),
        (408, NAMED, (408, "request_timeout", "prompt_rejected", "m", False)),
        (418, NAMED, (418, "invalid_request_error", "prompt_rejected", "m", False)),
        (500, error_body("500"), (500, "upstream_error", "rejected_by_pixapi", "m", True)),
        (503, error_body("model_unavailable"), (503, "upstream_unavailable", "model_unavailable", "m", True)),
        (413, b"<html>", (502, "upstream_error", "upstream_error", None, False)),
        (302, b"", (502, "upstream_error", "upstream_redirect", None, False)),
    ],
)
def test_a_refusal_is_passed_on_in_our_shape(
    status: int, body: bytes, expected: tuple[int, str, str, str | None, bool]
) -> None:
    error = classify(status, body, None, SECRET).error
    assert error is not None
    message = error.message if expected[3] is not None else None
    assert (error.status, error.type, error.reason, message, error.retry) == expected


@pytest.mark.parametrize("word", ["a b", "nul\0", "x" * 65, "ä", "", "line\nbreak", SECRET])
def test_a_word_that_is_none_stays_out_of_ledger_and_log(word: str) -> None:
    error = classify(400, error_body(word, type=word), None, SECRET).error
    assert error is not None
    assert error.reason in ("rejected_by_pixapi", "[redacted]")
    assert error.type in ("invalid_request_error", "[redacted]")


def test_a_message_is_scrubbed_and_bounded() -> None:
    error = classify(400, error_body(400, f"key {SECRET} is bad; " + "x" * 5000), None, SECRET).error
    assert error is not None
    assert error.message.startswith("key [redacted] is bad; xxx")
    assert len(error.message) == 1000


def test_both_error_shapes_are_read() -> None:
    assert read_error(NUMERIC) == PixapiError("m", "invalid_request_error", None)
    assert read_error(NAMED) == PixapiError("m", None, "prompt_rejected")
    assert read_error(error_body("400")) == PixapiError("m", None, None)


@pytest.mark.parametrize("body", NOT_PIXAPI, ids=range(len(NOT_PIXAPI)))
def test_other_bodies_are_no_error_of_pixapi(body: bytes) -> None:
    assert read_error(body) is None


def test_unknown_and_not_sent_say_what_may_be_repeated() -> None:
    late, lost, never = (
        unknown("x", timed_out=True).error,
        unknown("x").error,
        not_sent("no connection").error,
    )
    assert late is not None
    assert lost is not None
    assert never is not None
    assert (late.status, late.retry, lost.status, lost.retry) == (504, False, 502, False)
    assert (never.status, never.reason, never.retry) == (503, "upstream_unreachable", True)
    assert not_sent("x").verdict.may_have_executed is False


LETTERS = st.text(alphabet="abc_0", min_size=8, max_size=24)


@given(LETTERS, st.lists(st.tuples(st.text(alphabet="abc_0 x", max_size=12), st.integers(0, 40)), max_size=4))
def test_no_run_of_eight_of_the_secret_survives(secret: str, parts: list[tuple[str, int]]) -> None:
    text = "".join(before + (secret * 2)[cut % len(secret) :][: cut % 20] for before, cut in parts)
    found = scrub(text, secret)
    assert not any(secret[i : i + 8] in found for i in range(len(secret) - 7))


@given(st.text(max_size=200), st.text(alphabet="0123456789", min_size=8, max_size=20))
def test_text_without_the_secret_is_unchanged(text: str, secret: str) -> None:
    runs = [secret[i : i + 8] for i in range(len(secret) - 7)]
    if not any(run in text for run in runs):
        assert scrub(text, secret) == text


@given(st.text(alphabet="xyz ", max_size=50), st.text(alphabet="xyz ", max_size=50), LETTERS)
def test_only_the_secret_is_taken_out(before: str, after: str, secret: str) -> None:
    assert scrub(before + secret + after, secret) == f"{before}[redacted]{after}"
    assert scrub(before + secret[:7] + after, secret) == before + secret[:7] + after


# What speaks against the way to Pixapi ----------------------------------------------------------------------


@given(st.integers(100, 599), BODIES)
def test_trouble_is_a_5xx_apart_by_whether_pixapi_says_so(status: int, body: bytes) -> None:
    outcome = classify(status, body, None, SECRET)
    if status < 500 or outcome.verdict.concerns_our_key:
        assert outcome.trouble is None
    else:
        assert outcome.trouble is (Trouble.BARE if read_error(body) is None else Trouble.WORDED)


@pytest.mark.parametrize(
    ("body", "is_one"),
    [
        (b'{"object":"list","data":[]}', True),
        (b'{"data":[{"id":"veo"}]}', True),
        (b'{"data":{}}', False),
        (b"[]", False),
        (b"<html>welcome</html>", False),
        (b"", False),
        (b"[" * 100_000, False),
    ],
)
def test_a_model_list_is_told_from_a_page(body: bytes, is_one: bool) -> None:
    assert is_model_list(body) is is_one
