"""Bodies, signatures and addresses of webhooks, and when one is tried again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.alerts import messages

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
ALERT: dict[str, Any] = {
    "kind": "hold_unknown",
    "severity": "warning",
    "summary": "<1> hold & more",
    "id": "x",
}


def test_the_signature_is_that_of_the_standard_s_own_example() -> None:
    found = messages.signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        '{"test": 2432232314}',
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_headers_of_a_try() -> None:
    secret = messages.new_secret(bytes(range(32)))
    assert secret.startswith("whsec_")
    found = messages.headers(UUID(int=5), secret, "{}", 1_700_000_000)
    assert found["webhook-id"] == "msg_00000000000000000000000000000005"
    assert found["webhook-timestamp"] == "1700000000"
    signed = b"msg_00000000000000000000000000000005.1700000000.{}"
    mac = base64.b64encode(hmac.new(bytes(range(32)), signed, hashlib.sha256).digest()).decode()
    assert found["webhook-signature"] == f"v1,{mac}"
    assert secret not in str(found)


def test_a_standard_body() -> None:
    body = json.loads(messages.body("standard", "alert.raised", AT, ALERT))
    assert body == {"type": "alert.raised", "timestamp": "2026-11-22T12:00:00+00:00", "data": ALERT}


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ("alert.raised", "[warning] hold_unknown: &lt;1&gt; hold &amp; more"),
        ("alert.resolved", "[resolved] hold_unknown: &lt;1&gt; hold &amp; more"),
        ("test", "Test of the webhook by pixapi-gateway."),
    ],
)
def test_a_body_for_slack(event: messages.Event, text: str) -> None:
    assert json.loads(messages.body("slack", event, AT, ALERT)) == {"text": text}


def test_tries_come_ever_more_rarely_and_end() -> None:
    middle = [messages.wait_after(tries, 0.5) for tries in range(1, messages.MOST_TRIES + 1)]
    assert middle == [5, 30, 120, 600, 1800, 7200, 18000, None]


@given(tries=st.integers(1, 7), chance=st.floats(0, 1))
def test_jitter_stays_within_a_fifth(tries: int, chance: float) -> None:
    wait, base = messages.wait_after(tries, chance), messages.WAITS[tries - 1]
    assert wait is not None
    assert base * 0.79 < wait < base * 1.21


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/a/b?c=d",
        "http://10.0.0.7:8080/",
        "http://127.0.0.1:9000/x",
        "https://[fd00::7]/",
    ],
)
def test_addresses_that_can_be_used(url: str) -> None:
    assert messages.checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "example.com/x",
        "https://",
        "https://user:pass@example.com/",
        "https://user@example.com/",
        "https://example.com/#part",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com/a b",
        "https://example.com/" + "a" * 2000,
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "https://exämple.com/",
    ],
)
def test_addresses_that_cannot(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        messages.checked_url(url)


@pytest.mark.parametrize(
    ("host", "refused"),
    [("169.254.0.1", True), ("fe80::1%eth0", True), ("::ffff:169.254.1.1", True), ("10.0.0.1", False),
     ("127.0.0.1", False), ("169.253.0.1", False), ("a-name", False),
     ("fd20:ce::254", True), ("fd00:ec2::254", True), ("100.100.100.200", True), ("168.63.129.16", True),
     ("64:ff9b::a9fe:a9fe", True), ("64:ff9b::100.100.100.200", True), ("64:ff9b:1::a9fe:a9fe", True),
     ("::ffff:168.63.129.16", True), ("::ffff:100.100.100.200", True), ("::169.254.169.254", True),
     ("2002:a9fe:a9fe::1", True), ("169.254.169.254.", True),
     ("64:ff9b::a00:1", False), ("::ffff:10.0.0.1", False), ("::1", False), ("100.100.100.201", False),
     ("fd20:ce::255", False), ("", False)],
)  # fmt: skip
def test_metadata_addresses(host: str, refused: bool) -> None:
    assert messages.is_metadata(host) == refused


def test_what_everybody_may_see_of_an_address() -> None:
    assert (
        messages.origin("https://hooks.example.com:8443/services/T0/secret")
        == "https://hooks.example.com:8443"
    )
