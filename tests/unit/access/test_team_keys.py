from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.access.team_keys import IssuedKey, TeamKey, normal_address
from gateway.ids import uuid7

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER, EARLIER = NOW + timedelta(seconds=1), NOW - timedelta(seconds=1)


def _key(**given: Any) -> TeamKey:
    nothing = dict.fromkeys(
        (
            "allowed_models",
            "allowed_addresses",
            "requests_per_minute",
            "max_in_flight",
            "replaced_by",
            "expires_at",
            "revoked_at",
            "last_used_at",
        )
    )
    plain = {
        "id": "0123456789",
        "team_id": uuid7(),
        "team": "t",
        "name": "k",
        "last4": "abcd",
        "created_at": NOW,
    }
    return TeamKey(**{**nothing, **plain, **given})


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ({}, "active"),
        ({"expires_at": LATER}, "active"),
        ({"expires_at": NOW}, "expired"),
        ({"expires_at": EARLIER}, "expired"),
        ({"replaced_by": "abcdefghij", "expires_at": LATER}, "rotated"),
        ({"replaced_by": "abcdefghij", "expires_at": EARLIER}, "expired"),
        ({"replaced_by": "abcdefghij", "revoked_at": NOW}, "revoked"),
        ({"expires_at": EARLIER, "revoked_at": EARLIER}, "revoked"),
    ],
)
def test_the_state_follows_from_the_times(given: dict[str, object], state: str) -> None:
    assert _key(**given).state(NOW) == state


def test_an_issued_key_does_not_print_its_secret() -> None:
    issued = IssuedKey(_key(), "pxg_0123456789_hush")
    assert "hush" not in repr(issued) + str(issued)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3/255.0.0.0", "10.0.0.0/8"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("2001:db8::1/32", "2001:db8::/32"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_addresses_have_one_spelling(text: str, normal: str) -> None:
    assert normal_address(text) == normal


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.256", "10.0.0.0/33", "fe80::1%eth0", "host", "1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        normal_address(text)
