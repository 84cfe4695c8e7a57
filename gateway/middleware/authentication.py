"""Lets a request pass with one good team key, used from where it may be, of a team that is not suspended."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.access.authenticator import Authenticator
from gateway.proxy.admission import admit
from gateway.proxy.exchange import exchange_of


class AuthenticationMiddleware:
    """Puts the principal into the exchange. Raises 401 for any key problem, 403 for address and suspension."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await admit(exchange_of(scope), self._authenticator)
        await self._app(scope, receive, send)
