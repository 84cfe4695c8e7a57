"""Lets a browser pass that is signed in with a team key; any other is led to the form. What fails becomes a page."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.pages.forms import see_other
from gateway.pages.rendering import headers
from gateway.pages.team_visits import TeamVisits, sign_in
from gateway.proxy.exchange import exchange_of
from gateway.proxy.relay import reply


class TeamSessionMiddleware:
    """Puts the principal into the exchange. A session is not let in from where its key may not be used."""

    def __init__(self, app: ASGIApp, visits: TeamVisits) -> None:
        self._app = app
        self._visits = visits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, exchange = Request(scope, receive), exchange_of(scope)
        view = self._visits.view(request)
        try:
            who = await self._visits.visitor(request)
            if who is None or not who.may_call_from(exchange.client):
                await _lead(send, sign_in(view), fragment=view.fragment)
                return
            exchange.principal = who
            view = self._visits.view(request, who)
            await self._app(scope, receive, send)
        except GatewayError as error:
            exchange.failure = error.reason
            said = [(name.encode(), text.encode("latin-1")) for name, text in error.headers.items()]
            said += [(b"hx-reswap", b"none")] if view.fragment else []  # what is shown stays
            body = b"" if scope["method"] == "HEAD" else self._visits.failed(view, error)
            await reply(send, error.status, [*headers(), *said], body)


async def _lead(send: Send, path: str, *, fragment: bool) -> None:
    """303; a script that asked for a part of a page is told that the whole page moves on."""
    if fragment:
        await reply(send, 200, [(b"hx-redirect", path.encode()), (b"cache-control", b"no-store")], b"")
    else:
        await see_other(send, path)
