"""Who may go on: one good team key, used from where it may be, of a team that is not suspended."""

from __future__ import annotations

from gateway import errors
from gateway.access.authenticator import Authenticator
from gateway.access.principal import Address, Principal
from gateway.proxy.exchange import Exchange


async def admit(exchange: Exchange, authenticator: Authenticator) -> Principal:
    """The request's principal. Raises 401 for any key problem, 403 for address and suspension."""
    principal = await authenticator.authenticate(exchange.header_values(b"authorization"))
    exchange.principal = principal
    check_admitted(principal, exchange.client)
    return principal


def check_admitted(principal: Principal, client: Address | None) -> None:
    """Raises 403 for a key that may not be used from this address, and for a suspended team."""
    if not principal.may_call_from(client):
        raise errors.forbidden(
            f"This key may not be used from {client or 'this address'}; the platform team sets "
            "its allowed addresses.",
            "address_not_allowed",
        )
    if principal.team_suspended:
        raise errors.forbidden(
            f"The team '{principal.team_slug}' is suspended; ask the platform team.", "team_suspended"
        )
