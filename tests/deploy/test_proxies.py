"""Real calls through nginx and HAProxy, as the examples configure them."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.proxies import HAPROXY, Deaf, Proxy, free_port, program, proxy
from tests.docs.pages import page
from tests.e2e import harness
from tests.e2e.harness import Gateway

KINDS = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(
            program(kind) is None,
            reason=f"Debian's package '{package}' is not installed: {kind} was not tried",
        ),
    )
    for kind, package in (("nginx", "nginx-light"), ("haproxy", "haproxy"))
]
ORDER = {"model": "gemini-2.5-flash-image", "prompt": "A cup"}
CLIENT = "127.0.0.5"  # not the proxies' own address


@pytest.fixture(scope="module")
def gateway(module_database_url: str, redis_url: str) -> Iterator[Gateway]:
    own = {
        "GATEWAY_SERVER__PUBLIC_URL": "https://gateway.example.com",
        "GATEWAY_SERVER__TRUSTED_PROXIES": "127.0.0.1",
    }
    with (
        harness.sandbox() as sandbox,
        harness.gateway(module_database_url, redis_url, sandbox.base, own) as found,
    ):
        found.upstream_key("sk_acct_7b21e0c4d90001", "main", account="acct")
        yield found


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> str:
    return gateway.key(gateway.team("Behind")["slug"], allowed_addresses=[CLIENT])


@pytest.fixture(params=KINDS)
def front(request: pytest.FixtureRequest, gateway: Gateway, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy with one address nobody listens at, and the gateway."""
    with proxy(request.param, tmp_path, free_port(), gateway.process.port) as found:
        yield found


def client(front: Proxy, key: str = "") -> httpx.Client:
    """One that comes from `CLIENT` and trusts the certificate of the test."""
    transport = httpx.HTTPTransport(
        local_address=CLIENT, verify=ssl.create_default_context(cafile=str(front.certificate))
    )
    headers = {"host": "gateway.example.com"} | ({"authorization": f"Bearer {key}"} if key else {})
    return httpx.Client(base_url=front.secure, transport=transport, timeout=60, headers=headers)


def test_calls_arrive_with_the_clients_address(front: Proxy, key: str) -> None:
    """The key is for one address; what a client says of itself does not count. A dead gateway is passed over."""
    with client(front, key) as here:
        for _ in range(4):
            answer = here.post(
                "/v1/images/generations", json=ORDER, headers={"x-forwarded-for": "203.0.113.9"}
            )
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-credits-charged"] == "2"
            assert answer.headers["x-request-id"]


def test_a_living_gateway_stays_in_use_and_a_dead_one_does_not(front: Proxy, key: str) -> None:
    """After HAProxy has looked three times at each; nginx looks only when it is asked."""
    if "haproxy" not in front.log.name:
        pytest.skip("nginx asks gateways only what its clients ask")
    time.sleep(6.5)
    with client(front, key) as here:
        assert here.post("/v1/images/generations", json=ORDER).status_code == 200
    down = re.findall(r"Server gateways/gateway-(\d+) is DOWN", front.log.read_text("utf-8"))
    assert len(set(down)) == 1


def test_long_headers_and_bodies_pass(front: Proxy, key: str) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(20 * 2**20)
    with client(front, key) as here:
        answer = here.post(
            "/v1/images/edits",
            data={"model": ORDER["model"], "prompt": "A saucer"},
            files={"image": ("cup.png", picture, "image/png")},
            headers={"x-note": "x" * 12_000},
        )
    assert answer.status_code == 200, answer.text


def test_what_is_too_large_is_refused_by_the_gateway(front: Proxy, key: str) -> None:
    with client(front, key) as here:
        answer = here.post(
            "/v1/images/generations", content=bytes(3 * 2**20), headers={"content-type": "application/json"}
        )
    assert answer.status_code == 413
    assert answer.json()["error"]["reason"] == "request_too_large"


def test_a_slow_call_is_waited_for(front: Proxy, key: str) -> None:
    with client(front, key) as here:
        began = time.monotonic()
        answer = here.post("/v1/images/generations", json={**ORDER, "prompt": "A cup [fault:delay=3]"})
    assert answer.status_code == 200
    assert time.monotonic() - began >= 3


def test_sign_in_gets_a_secure_cookie(front: Proxy, gateway: Gateway) -> None:
    token = gateway.environment["GATEWAY_ADMIN__BOOTSTRAP_TOKEN"]
    with client(front) as here:
        answer = here.post(
            "/admin/login", data={"token": token}, headers={"origin": "https://gateway.example.com"}
        )
    assert answer.status_code == 303, answer.text
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-")
    assert "secure" in cookie.lower()


def test_metrics_stay_inside_and_plain_http_leads_to_tls(front: Proxy) -> None:
    with client(front) as here:
        assert here.get("/metrics").status_code == 404
    answer = httpx.get(f"{front.plain}/admin/?a=b", headers={"host": "gateway.example.com"}, trust_env=False)
    assert (answer.status_code, answer.headers["location"]) == (308, "https://gateway.example.com/admin/?a=b")


@pytest.mark.parametrize("path", ["/v1/images/generations", "/gateway/account", "/admin/api/teams"])
def test_a_key_in_clear_is_refused_and_not_led_on(front: Proxy, path: str) -> None:
    """SDKs follow a redirect of a POST, so nobody would notice that the key is readable."""
    headers = {"host": "gateway.example.com", "authorization": "Bearer of-whom-it-may-concern"}
    answer = httpx.post(f"{front.plain}{path}", json=ORDER, headers=headers, trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/json")
    error = answer.json()["error"]
    assert (error["code"], error["reason"]) == (403, "https_required")
    assert "https://" in error["message"]


def test_a_gateway_that_ends_takes_calls_until_haproxy_has_noticed() -> None:
    text = page(HAPROXY)
    checks = re.search(r"check inter (\d+)s fall (\d+)", text)
    taken = re.search(r"GATEWAY_SERVER__DRAIN_MIN_SECONDS=(\d+)", text)
    assert checks
    assert taken
    assert int(taken[1]) > int(checks[1]) * int(checks[2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_paid_call_that_was_sent_is_never_sent_again(kind: str, tmp_path: Path) -> None:
    with Deaf().listening() as one, Deaf().listening() as other:
        with proxy(kind, tmp_path, one.port, other.port) as front:
            for _ in range(4):
                with client(front) as here:
                    answer = here.post("/v1/images/generations", content=json.dumps(ORDER))
                    assert answer.status_code == 502
        assert len(one.got) + len(other.got) == 4
        assert {line.split()[0] for line in one.got + other.got} == {"POST"}
