"""Who may pass: one good key, from where it may be used, of a team that is not suspended."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from gateway import errors
from gateway.access.authenticator import Authenticator
from gateway.access.principal import Principal
from gateway.errors import GatewayError
from gateway.middleware.authentication import AuthenticationMiddleware
from tests.fakes.asgi import HOST, call, http, ok, with_exchange
from tests.fakes.principals import principal


class OneKey(Authenticator):
    """Knows the key `good` and the principal it stands for."""

    def __init__(self, known: Principal) -> None:
        self.known = known

    async def authenticate(self, authorization: list[bytes]) -> Principal:
        if authorization != [b"Bearer good"]:
            raise errors.unauthenticated()
        return self.known


async def outcome(
    header: bytes = b"Bearer good", client: str | None = "10.1.2.3", **fields: Any
) -> int | str:
    """200 when the request passes, else the reason it is refused for."""
    scope = http(headers=[HOST, (b"authorization", header)])
    exchange = with_exchange(scope, client=None if client is None else ip_address(client))
    known = principal(**fields)
    try:
        sent = await call(AuthenticationMiddleware(ok, OneKey(known)), scope)
    except GatewayError as error:
        return f"{error.status} {error.reason}"
    assert exchange.principal is known
    return sent.status


@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({}, 200),
        ({"header": b"Bearer bad"}, "401 invalid_key"),
        ({"allowed_addresses": (ip_network("10.0.0.0/8"),)}, 200),
        ({"allowed_addresses": (ip_network("192.0.2.0/24"),)}, "403 address_not_allowed"),
        ({"client": None, "allowed_addresses": (ip_network("10.0.0.0/8"),)}, "403 address_not_allowed"),
        ({"team_suspended": True}, "403 team_suspended"),
        ({"header": b"Bearer bad", "team_suspended": True}, "401 invalid_key"),
    ],
)
async def test_who_may_pass(request_fields: dict[str, Any], expected: int | str) -> None:
    assert await outcome(**request_fields) == expected


async def test_who_is_refused_is_known_to_the_log_line() -> None:
    scope = http(headers=[HOST, (b"authorization", b"Bearer good")])
    exchange = with_exchange(scope)
    known = principal(team_suspended=True)
    with pytest.raises(GatewayError, match="'alpha' is suspended"):
        await call(AuthenticationMiddleware(ok, OneKey(known)), scope)
    assert exchange.principal is known
