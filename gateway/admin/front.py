"""/admin/: where a browser learns who it is signed in as, and how this gateway is administered."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from gateway.admin import plain_pages
from gateway.admin.callers import Callers
from gateway.errors import GatewayError
from gateway.proxy.relay import reply


class Front:
    """A page of text for everybody. Who is signed in sees so, and can sign out."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            session = await self._callers.session(HTTPConnection(scope))
        except GatewayError:  # the page holds without a database
            session = None
        name, role = (None, None) if session is None else (session.name, session.role)
        await reply(send, 200, list(plain_pages.HEADERS), plain_pages.front(name, role))
