"""The vocabulary of failures: the contract's status, type and repeat hint for each, in Pixapi's shape."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.errors import RETRY_HINT_STATUSES, GatewayError, render

# status → the types the contract gives it.
TYPES = {
    400: {"invalid_request_error"},
    401: {"authentication_error"},
    402: {"insufficient_quota"},
    403: {"permission_error"},
    404: {"not_found_error"},
    405: {"method_not_allowed"},
    408: {"request_timeout"},
    409: {"conflict_error", "idempotency_in_progress"},
    413: {"request_too_large"},
    414: {"uri_too_long"},
    415: {"unsupported_media_type"},
    417: {"invalid_request_error"},
    422: {"idempotency_mismatch"},
    429: {"rate_limit_error"},
    431: {"headers_too_large"},
    500: {"internal_error"},
    502: {"upstream_error", "upstream_outcome_unknown"},
    503: {"overloaded", "dependency_unavailable", "upstream_unavailable"},
    504: {"upstream_outcome_unknown"},
}
ARGUMENTS = {
    "message": "m",
    "reason": "r",
    "allowed": "GET, HEAD",
    "limit": 8192,
    "retry_after": 2.0,
    "timed_out": True,
}
SOURCE = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isfunction(value) and value.__module__ == errors.__name__ and name != "render"
}


def made(build: Callable[..., GatewayError]) -> GatewayError:
    wanted = inspect.signature(build).parameters
    return build(**{name: ARGUMENTS[name] for name in wanted if name in ARGUMENTS})


def test_there_are_constructors() -> None:
    assert len(SOURCE) >= 20
    assert {made(build).status for build in SOURCE.values()} <= TYPES.keys()


@pytest.mark.parametrize("name", SOURCE)
def test_every_failure_has_a_status_and_type_of_the_contract(name: str) -> None:
    error = made(SOURCE[name])
    assert error.type in TYPES[error.status]
    assert error.reason
    assert error.message
    assert str(error) == f"{error.status} {error.reason}: {error.message}"


@pytest.mark.parametrize("name", SOURCE)
def test_a_repeat_is_recommended_only_where_it_cannot_cost_twice(name: str) -> None:
    error = made(SOURCE[name])
    # A key's call that still runs is not sent again either: the next try gets its answer.
    certainly_not_sent = error.status in (429, 503) or error.reason == "idempotency_in_progress"
    certainly_not_sent |= name == "conflict_for_now"  # of the admin API, which sends nothing
    assert error.retry is certainly_not_sent
    headers = dict(render(error, "req_1")[0])
    hint = headers.get(b"x-should-retry")
    assert hint == (
        None if error.status not in RETRY_HINT_STATUSES else b"true" if certainly_not_sent else b"false"
    )
    assert (b"retry-after" in headers) is certainly_not_sent


@given(st.text(max_size=200), st.sampled_from(sorted(TYPES)))
def test_an_answer_is_json_in_pixapi_s_shape_whatever_the_message(message: str, status: int) -> None:
    headers, body = render(GatewayError(status, "t", "r", message), "req_1")
    assert msgspec.json.decode(body) == {
        "error": {"code": status, "message": message, "type": "t", "reason": "r", "request_id": "req_1"}
    }
    assert dict(headers)[b"content-length"] == str(len(body)).encode()
    assert dict(headers)[b"content-type"] == b"application/json"
    assert (b"x-should-retry" in dict(headers)) is (status in {402, 408, 409, 429, 500, 502, 503, 504})


@pytest.mark.parametrize(
    ("seconds", "whole", "milliseconds"),
    [(0.0, "1", "1"), (0.2, "1", "200"), (1.0, "1", "1000"), (1.001, "2", "1001"), (59.5, "60", "59500")],
)
def test_a_rate_limit_s_wait_is_rounded_up(seconds: float, whole: str, milliseconds: str) -> None:
    headers = errors.rate_limited("m", "r", seconds).headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == (whole, milliseconds)


@given(st.floats(0, 1e5))
def test_who_waits_as_told_does_not_come_too_early(seconds: float) -> None:
    headers = errors.rate_limited("m", "r", seconds).headers
    assert int(headers["retry-after"]) >= seconds - 0.001
    assert int(headers["retry-after-ms"]) >= seconds * 1000 - 1


def test_a_refused_method_names_those_that_work() -> None:
    assert dict(render(errors.method_not_allowed("GET, HEAD"), "req_1")[0])[b"allow"] == b"GET, HEAD"


def test_broken_requests_close_their_connection() -> None:
    closing = {name for name, build in SOURCE.items() if made(build).headers.get("connection") == "close"}
    assert closing == {
        "broken_framing",
        "request_timeout",
        "too_large",
        "uri_too_long",
        "expectation_failed",
        "headers_too_large",
    }


def test_every_key_problem_has_one_wording() -> None:
    assert errors.unauthenticated().message == errors.unauthenticated().message
    assert errors.unauthenticated().headers == {"www-authenticate": "Bearer"}
    assert errors.task_not_found().reason == "task_not_found"
