"""What a principal may do: models, addresses, and until when."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address, ip_network

import pytest

from tests.fakes.clock import BEGINNING
from tests.fakes.principals import principal


@pytest.mark.parametrize(
    ("team", "key", "allowed"),
    [
        (None, None, True),
        ({"veo"}, None, True),
        (None, {"veo"}, True),
        ({"veo"}, {"veo", "wan"}, True),
        ({"wan"}, None, False),
        (None, {"wan"}, False),
        ({"veo"}, {"wan"}, False),
        ({"wan"}, {"veo"}, False),
        (set(), None, False),
        (None, set(), False),
    ],
)
def test_a_model_has_to_be_allowed_by_team_and_key(
    team: set[str] | None, key: set[str] | None, allowed: bool
) -> None:
    caller = principal(
        team_models=None if team is None else frozenset(team),
        key_models=None if key is None else frozenset(key),
    )
    assert caller.may_use("veo") is allowed


def test_an_alias_in_an_allowed_list_stands_for_its_model() -> None:
    caller = principal(team_models=frozenset({"nano-banana"}), key_models=None)
    aliases = {"nano-banana": "gemini-2.5-flash-image"}
    assert caller.may_use("gemini-2.5-flash-image", lambda name: aliases.get(name, name))
    assert not caller.may_use("veo", lambda name: aliases.get(name, name))


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        (None, "192.0.2.1", True),
        (None, None, True),
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["10.0.0.0/8"], "11.1.2.3", False),
        (["10.0.0.0/8", "192.0.2.7/32"], "192.0.2.7", True),
        (["2001:db8::/32"], "2001:db8::1", True),
        (["2001:db8::/32"], "10.1.2.3", False),
        (["10.0.0.0/8"], None, False),
        ([], "10.1.2.3", False),
    ],
)
def test_a_key_may_be_tied_to_addresses(
    networks: list[str] | None, address: str | None, allowed: bool
) -> None:
    caller = principal(
        allowed_addresses=None if networks is None else tuple(ip_network(text) for text in networks)
    )
    assert caller.may_call_from(None if address is None else ip_address(address)) is allowed


@pytest.mark.parametrize(("seconds", "expired"), [(-1, True), (0, True), (1, False)])
def test_a_key_is_over_at_the_very_moment(seconds: int, expired: bool) -> None:
    caller = principal(expires_at=BEGINNING + timedelta(seconds=seconds))
    assert caller.expired(BEGINNING) is expired
    assert not principal(expires_at=None).expired(BEGINNING)
