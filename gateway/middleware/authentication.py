"""Lets a request pass with one good team key, used from where it may be, of a team that is not suspended."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.access.authenticator import Authenticator
from gateway.proxy.exchange import exchange_of


class AuthenticationMiddleware:
    """Puts the principal into the exchange. Raises 401 for any key problem, 403 for address and suspension."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        principal = await self._authenticator.authenticate(exchange.header_values(b"authorization"))
        exchange.principal = principal
        if not principal.may_call_from(exchange.client):
            raise errors.forbidden(
                f"This key may not be used from {exchange.client or 'this address'}; the platform team sets "
                "its allowed addresses.",
                "address_not_allowed",
            )
        if principal.team_suspended:
            raise errors.forbidden(
                f"The team '{principal.team_slug}' is suspended; ask the platform team.", "team_suspended"
            )
        await self._app(scope, receive, send)
