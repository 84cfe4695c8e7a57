"""What each answer of Pixapi, or the lack of one, means for a paid call: the client's answer, the hold, and that
nothing is sent twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.data_plane.rig import ASYNC, MICRO, SYNC, VIDEOS, Rig, error_of, order, runs_of

QUOTE = 2 * MICRO
SCRUBBED = "[redacted]"


@pytest.fixture
def here(impatient: Rig) -> Rig:
    return impatient


@dataclass(frozen=True, slots=True)
class Expected:
    """An answer and what is left behind: the hold's state (settled at the quote), its flags, executions."""

    status: int
    type: str
    reason: str
    retry: str | None
    hold: str
    executed: int = 0
    flags: tuple[str, ...] = ()


def refusal(status: int, kind: str, reason: str = "rejected_by_pixapi") -> Expected:
    """Pixapi's definite no to this request."""
    retry = {500: "true", 503: "true", 408: "false", 409: "false"}.get(status)
    return Expected(status, kind, reason, retry, "released")


def unknown(executed: int, status: int = 502) -> Expected:
    return Expected(
        status, "upstream_outcome_unknown", "upstream_outcome_unknown", "false", "unknown", executed
    )


def odd(executed: int) -> Expected:
    return Expected(502, "upstream_error", "upstream_error", "false", "settled", executed, ("odd_answer",))


INVALID, SERVER = "invalid_request_error", "server_error"
NOT_PIXAPI = Expected(502, "upstream_error", "upstream_error", "false", "released")
REDIRECTED = Expected(502, "upstream_error", "upstream_redirect", "false", "released")

ANSWERS: dict[str, Expected] = {
    # Pixapi's error body in its numeric shape
    "status=400": refusal(400, INVALID),
    "status=403": refusal(403, INVALID),
    "status=404": refusal(404, INVALID),
    "status=408": refusal(408, INVALID),
    "status=409": refusal(409, INVALID),
    "status=413": refusal(413, INVALID),
    "status=415": refusal(415, INVALID),
    "status=418": refusal(418, INVALID),
    "status=422": refusal(422, INVALID),
    "status=451": refusal(451, INVALID),
    "status=500": refusal(500, SERVER),
    "status=503": refusal(503, SERVER),
    # and in the other one: the code word is kept
    "status=400 shape=string": refusal(400, INVALID, "invalid_request"),
    "status=403 shape=string": refusal(403, "permission_error", "prompt_rejected"),
    "status=404 shape=string": refusal(404, "not_found_error", "model_not_found"),
    "status=408 shape=string": refusal(408, "request_timeout", "invalid_request"),
    "status=422 shape=string": refusal(422, INVALID, "invalid_request"),
    "status=500 shape=string": refusal(500, "upstream_error", "internal_error"),
    "status=503 shape=string": refusal(503, "upstream_unavailable", "model_unavailable"),
    "executes_then_500": Expected(500, SERVER, "rejected_by_pixapi", "true", "released", 1),
    # something between answers in Pixapi's place
    "status=400 shape=html": NOT_PIXAPI,
    "status=403 shape=none": NOT_PIXAPI,
    "status=404 shape=html": NOT_PIXAPI,
    "status=413 shape=none": NOT_PIXAPI,
    "status=408 shape=none": unknown(0),
    "status=500 shape=none": unknown(0),
    "status=500 shape=html": unknown(0),
    "status=503 shape=none": unknown(0),
    "status=503 shape=html": unknown(0),
    "executes_then_500=503 shape=none": unknown(1),
    "executes_then_500=500 shape=html": unknown(1),
    # 502 and 504 are never definite, whatever they carry
    "status=502": unknown(0),
    "status=502 shape=string": unknown(0),
    "status=502 shape=none": unknown(0),
    "status=504": unknown(0),
    "status=504 shape=html": unknown(0),
    "executes_then_500=502": unknown(1),
    "executes_then_500=504 shape=none": unknown(1),
    "executes_then_500=524 shape=html": unknown(1),
    "status=501": unknown(0),
    "status=599 shape=string": unknown(0),
    # redirects
    "redirect": REDIRECTED,
    "redirect=301": REDIRECTED,
    "redirect=303": REDIRECTED,
    "redirect=308": REDIRECTED,
    # a complete 2xx that is none of Pixapi's
    "html": odd(0),
    "empty_204": odd(1),
    "no_data": odd(1),
    "bad_json": odd(1),
    "status=200 shape=none": odd(0),
    "status=201 shape=html": odd(0),
    "status=204": odd(0),
    # the connection ends
    "reset": unknown(0),
    "reset_after_execute": unknown(1),
    "half_body": unknown(1),
    "cut": unknown(1),
}


@pytest.mark.parametrize("path", [SYNC, ASYNC])
@pytest.mark.parametrize("marker", ANSWERS)
def test_an_answer_ends_the_call_and_its_hold(here: Rig, path: str, marker: str) -> None:
    expected = ANSWERS[marker]
    answer = here.client.post(path, json=order(f"[fault:{marker}]"))
    error_of(answer, expected.status, expected.type, expected.reason)
    assert answer.headers.get("x-should-retry") == expected.retry
    check_traces(here, answer, expected)


def check_traces(rig: Rig, answer: httpx.Response, expected: Expected) -> None:
    """One request went out, executed as often as expected, and the hold is where it belongs when the answer arrives."""
    sent = rig.sent(answer)
    assert len(sent) == 1
    assert sum(entry["executed"] for entry in sent) == expected.executed
    hold = rig.held(answer)
    assert (hold.state, hold.quote) == (expected.hold, QUOTE)
    assert hold.settled == (QUOTE if expected.hold == "settled" else None)
    assert hold.flags == list(expected.flags)
    assert len(rig.attempts(answer)) == 1


@pytest.mark.parametrize("path", [SYNC, ASYNC])
def test_no_answer_in_time_is_504_and_unknown(here: Rig, path: str) -> None:
    markers = {"hang": 0, "hang_after_execute": 1, "delay=30": 0, "drip=30": 1}

    def call(marker: str) -> httpx.Response:
        return here.client.post(path, json=order(f"[fault:{marker}]"))

    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(call, markers))
    for answer, executed in zip(answers, markers.values(), strict=True):
        error_of(answer, 504, "upstream_outcome_unknown", "upstream_outcome_unknown")
        assert answer.headers["x-should-retry"] == "false"
        assert 1.9 < answer.elapsed.total_seconds() < 8
        check_traces(here, answer, unknown(executed, 504))


def test_an_empty_result_is_passed_on_and_costs_nothing(here: Rig) -> None:
    answer = here.client.post(SYNC, json=order("[fault:data_empty]"))
    assert answer.status_code == 200
    assert answer.json()["data"] == []
    hold = here.held(answer)
    assert (hold.state, hold.settled, hold.flags, hold.estimated) == ("settled", 0, ["odd_answer"], True)


@pytest.mark.parametrize("delivered", [1, 2, 3])
def test_only_delivered_images_are_charged(here: Rig, delivered: int) -> None:
    answer = here.client.post(SYNC, json=order(f"[fault:fewer_images={delivered}]", n=3))
    assert len(answer.json()["data"]) == delivered
    hold = here.held(answer)
    assert (hold.quote, hold.settled, hold.flags) == (3 * QUOTE, delivered * QUOTE, [])
    assert hold.settled == here.sent(answer)[0]["credits"] * MICRO


def test_a_price_from_is_held_and_the_base_is_charged(here: Rig) -> None:
    answer = here.client.post(SYNC, json=order(n=2, quality="high") | {"model": "gpt-image-2"})
    hold = here.held(answer)
    assert (hold.quote, hold.settled, hold.estimated) == (16 * MICRO, 2 * MICRO, True)


@pytest.mark.parametrize("path", [SYNC, ASYNC])
@pytest.mark.parametrize("status", [400, 403, 404, 422, 500, 503])
def test_the_key_is_scrubbed_from_what_pixapi_says(here: Rig, path: str, status: int) -> None:
    answer = here.client.post(path, json=order(f"[fault:echo_key={status}]"))
    kind = INVALID if status < 500 else SERVER
    error = error_of(answer, status, kind, "rejected_by_pixapi")
    assert error["message"] == f"Incorrect API key provided: {SCRUBBED}."
    everything = answer.text + str(answer.headers) + here.gateway.process.text()
    assert not [run for run in runs_of(here.secret) if run in everything]


def test_messages_of_pixapi_are_passed_on(here: Rig) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        (SYNC, order(""), "prompt is required."),
        (SYNC, order(size="enormous"), "size 'enormous' is not supported."),
        (SYNC, order(quality="best"), "quality must be one of"),
        (VIDEOS, order(size="7") | {"model": "kling"}, "size '7' is not supported."),
    ]
    for path, body, message in cases:
        answer = here.client.post(path, json=body)
        error = error_of(answer, 400, INVALID, "rejected_by_pixapi")
        assert error["message"].startswith(message)
        assert here.held(answer).state == "released"
