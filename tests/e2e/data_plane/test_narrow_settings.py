"""A gateway with little room: what is too much is refused before a hold, at once, and nothing is sent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.data_plane.forms import CONTENT_TYPE, ORDER, file, form
from tests.e2e.data_plane.rig import ASYNC, EDITS, PAID, SYNC, VIDEOS, Rig, error_of, order, rig
from tests.e2e.data_plane.wire import Wire, head
from tests.e2e.harness import eventually

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def here(module_database_url: str, redis_url: str) -> Iterator[Rig]:
    settings = {
        "GATEWAY_SERVER__MAX_PAID_IN_FLIGHT": "2",
        "GATEWAY_SERVER__BODY_IDLE_TIMEOUT": "0.5",
        "GATEWAY_SERVER__HEADER_TIMEOUT": "0.5",
        "GATEWAY_SERVER__ALLOWED_HOSTS": "127.0.0.1,gateway.test",
        "GATEWAY_SERVER__SPOOL_MAX_BYTES": str(4 * MIB),
        "GATEWAY_SERVER__TRUSTED_PROXIES": "127.0.0.1",
        "GATEWAY_CREDITS__UNPRICED": "hold_default",
        "GATEWAY_CREDITS__DEFAULT_HOLD": "25",
    }
    with rig(module_database_url, redis_url, settings) as found:
        yield found


def overloaded(rig: Rig, answer: httpx.Response, reason: str = "overloaded") -> None:
    error_of(answer, 503, "overloaded", reason)
    assert answer.headers["x-should-retry"] == "true"
    assert int(answer.headers["retry-after"]) >= 1
    assert rig.untouched(answer)


def test_one_call_too_many_is_refused_at_once(here: Rig) -> None:
    with ThreadPoolExecutor(2) as threads:
        slow = [threads.submit(here.client.post, SYNC, json=order("[fault:delay=1.5]")) for _ in range(2)]
        eventually(lambda: sum(entry["faults"] == ["delay=1.5"] for entry in here.sandbox.journal()) == 2)
        for path in PAID:
            since = time.monotonic()
            overloaded(here, here.client.post(path, json=order()))
            assert time.monotonic() - since < 1
        # Everything that is free is served meanwhile, and a wrong key is still told so.
        for path in ("/v1/models", "/healthz", "/readyz", "/gateway/account"):
            assert here.client.get(path).status_code == 200
        with here.caller() as nobody:
            error_of(nobody.post(SYNC, json=order()), 401, "authentication_error")
        assert [one.result().status_code for one in slow] == [200, 200]
    assert here.client.post(SYNC, json=order()).status_code == 200


def test_a_refused_call_gives_its_place_back(here: Rig) -> None:
    for body in (
        {"model": "x" * 300},
        order("[fault:status=400]"),
        order("[fault:reset]"),
        order("[fault:html]"),
    ):
        for _ in range(3):
            assert here.client.post(SYNC, json=body).status_code in (400, 502)
    assert here.client.post(SYNC, json=order()).status_code == 200


def test_a_body_beyond_the_spool_is_refused_before_the_hold(here: Rig) -> None:
    body = form([*ORDER, file(data=b"x" * 6 * MIB)])
    overloaded(
        here, here.client.post(EDITS, content=body, headers={"content-type": CONTENT_TYPE}), "spool_full"
    )
    small = form([*ORDER, file(data=b"x" * 2 * MIB)])
    answer = here.client.post(EDITS, content=small, headers={"content-type": CONTENT_TYPE})
    assert answer.status_code == 200


def test_an_answer_beyond_the_spool_was_executed(here: Rig) -> None:
    answer = here.client.post(SYNC, json=order("[fault:big=8]", response_format="b64_json"))
    error_of(answer, 502, "upstream_outcome_unknown")
    assert here.held(answer).state == "unknown"
    assert here.sent(answer)[0]["executed"]
    small = here.client.post(SYNC, json=order("[fault:big=2]", response_format="b64_json"))
    assert len(small.content) > 2_000_000
    token = {"authorization": f"Bearer {here.gateway.environment['GATEWAY_ADMIN__BOOTSTRAP_TOKEN']}"}
    eventually(lambda: "gateway_spool_bytes 0.0" in here.client.get("/metrics", headers=token).text)


@pytest.mark.parametrize("framing", ["Content-Length: 60", "Transfer-Encoding: chunked"])
def test_a_body_that_stops_coming_is_408(here: Rig, framing: str) -> None:
    fields = [
        "Host: gateway.test",
        f"Authorization: Bearer {here.key}",
        "Content-Type: application/json",
        framing,
    ]
    with Wire(here.gateway.process.port) as wire:
        wire.send(head(f"POST {SYNC} HTTP/1.1", *fields) + b'5\r\n{"mod\r\n')
        answer = wire.answer()
        error_of(answer, 408, "request_timeout", "request_timeout")
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["connection"] == "close"
        assert wire.is_closed()
    assert here.untouched(answer)


def test_a_head_that_stops_coming_is_408(here: Rig) -> None:
    with Wire(here.gateway.process.port) as wire:
        wire.send(f"POST {SYNC} HTTP/1.1\r\nHost: gateway.te".encode())
        error_of(wire.answer(), 408, "request_timeout")
        assert wire.is_closed()


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("gateway.test", True),
        ("Gateway.TEST:8080", True),
        ("127.0.0.1", True),
        ("evil.test", False),
        ("gateway.test.evil.test", False),
        ("127.0.0.1.evil.test", False),
        ("localhost", False),
    ],
)
def test_only_named_hosts_are_served(here: Rig, host: str, served: bool) -> None:
    answer = here.client.get("/v1/models", headers={"host": host})
    if served:
        assert answer.status_code == 200
    else:
        error_of(answer, 400, "invalid_request_error", "unknown_host")


@pytest.mark.parametrize(
    ("forwarded", "allowed"),
    [
        (["10.1.2.3"], True),
        (["192.0.2.9, 10.1.2.3"], True),
        (["192.0.2.9", "10.1.2.3"], True),
        (["10.1.2.3, 127.0.0.1"], True),
        (["::ffff:10.1.2.3"], True),
        (["10.1.2.3, 192.0.2.9"], False),
        (["10.1.2.3", "192.0.2.9"], False),
        (["10.1.2.3, nonsense"], False),
        ([], False),
    ],
)
def test_a_trusted_proxy_s_word_counts_from_the_right(here: Rig, forwarded: list[str], allowed: bool) -> None:
    key = here.gateway.key(here.team, allowed_addresses=["10.0.0.0/8"])
    with here.caller(key) as client:
        answer = client.get("/v1/models", headers=[("x-forwarded-for", value) for value in forwarded])
    if allowed:
        assert answer.status_code == 200
    else:
        error_of(answer, 403, "permission_error", "address_not_allowed")


@pytest.mark.parametrize(("path", "asynchronous"), [(VIDEOS, True), (ASYNC, True), (SYNC, False)])
def test_an_unpriced_model_is_held_at_the_default(here: Rig, path: str, asynchronous: bool) -> None:
    # sora-2 is a video model of the sandbox that the price book does not know.
    answer = here.client.post(path, json=order("[fault:stuck]" if asynchronous else "") | {"model": "sora-2"})
    hold = here.held(answer)
    assert hold.quote == 25_000_000
    if path == VIDEOS:
        assert answer.status_code == 200
        assert hold.state == "held"
        assert "sora-2" in [model["id"] for model in here.client.get("/v1/models").json()["data"]]
    else:
        error_of(answer, 400, "invalid_request_error")  # Pixapi's own word
        assert hold.state == "released"
