"""/admin/login and /admin/logout: an admin token becomes a session of this browser, and ends again.

The form works without a script. A session's id is new with each sign-in, so nobody can be given one beforehand.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway.access.admin_tokens import AdminPrincipal
from gateway.access.principal import Address
from gateway.access.sign_in_attempts import SignInAttempts
from gateway.admin.callers import Callers
from gateway.admin.next_page import next_page
from gateway.admin.sign_in_pages import SignInPages
from gateway.errors import GatewayError
from gateway.pages import rendering
from gateway.pages.forms import read_sign_in, see_other
from gateway.pages.language import N_
from gateway.proxy.exchange import exchange_of
from gateway.proxy.relay import reply

WRONG = N_("This admin token is unknown or was revoked. Check that it was pasted whole: it begins with pxa_.")


class Login:
    """GET is the form; POST takes it: 303 with the cookie, or the form again with what was wrong."""

    def __init__(self, callers: Callers, attempts: SignInAttempts, pages: SignInPages) -> None:
        self._callers = callers
        self._attempts = attempts
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "POST":
            await self._post(request, send)
        else:
            form = self._pages.form(request, next_page(request.query_params.get("next")))
            await reply(send, 200, rendering.headers(), form)

    async def _post(self, request: Request, send: Send) -> None:
        self._callers.refuse_cross_site("POST", request)
        fields = await read_sign_in(request)
        target, exchange = next_page(fields.get("next")), exchange_of(request.scope)
        try:
            who = await self._who(fields.get("token", ""), exchange.client)
            value = None
            if who is not None:
                value = await self._callers.sessions.begin(who, replaces=self._callers.cookie(request))
        except GatewayError as error:
            exchange.failure = error.reason
            self._count("limited" if error.status == 429 else "failed")
            headers = [(name.encode(), text.encode()) for name, text in error.headers.items()]
            await self._form(send, request, target, error.message, error.status, headers)
            return
        if value is None:
            exchange.failure = "invalid_admin_token"
            self._count("refused")
            await self._form(send, request, target, WRONG, 401)
        else:
            self._count("signed_in")
            jar = self._callers.jar
            await see_other(send, target, [jar.set(jar.session, value)])

    async def _who(self, token: str, client: Address | None) -> AdminPrincipal | None:
        """Whose token this is: a good one signs in however often others have failed, and only a wrong one counts.

        What cannot be a token costs no query, so it does not count either. GatewayError 429 for one wrong too many.
        """
        known, given = self._callers.tokens, token.encode()
        if not known.may_be_one(given):
            return None
        who = await known.principal_of(given)
        if who is None:
            number = await self._attempts.take(client)
            await self._attempts.refused(client, number, "unknown token")
        return who

    async def _form(
        self,
        send: Send,
        request: Request,
        target: str,
        wrong: str,
        status: int,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        form = self._pages.form(request, target, wrong)
        await reply(send, status, [*rendering.headers(), *(headers or [])], form)

    def _count(self, result: str) -> None:
        self._callers.metrics.sign_ins.labels(result).inc()


class Logout:
    """POST ends this browser's session, if it has one, and leads to the form."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self._callers.refuse_cross_site("POST", request)
        value, jar = self._callers.cookie(request), self._callers.jar
        if value is not None and await self._callers.sessions.end(value):
            self._callers.metrics.sign_ins.labels("signed_out").inc()
        await see_other(send, "/admin/login", [jar.clear(jar.session)])
