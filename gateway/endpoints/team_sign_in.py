"""/gateway/login and /gateway/logout: a team key becomes a session of this browser, and ends again.

As for admins: the form works without a script, and a session's id is new with each sign-in. With the session nothing
can be changed and nothing be called that costs.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway.access.authenticator import Authenticator
from gateway.access.key_format import TEAM_KEY, parse
from gateway.access.principal import Address, Principal
from gateway.access.sign_in_attempts import SignInAttempts
from gateway.errors import GatewayError
from gateway.pages import rendering
from gateway.pages.forms import read_sign_in, see_other
from gateway.pages.language import N_
from gateway.pages.team_addresses import LOGIN, next_page
from gateway.pages.team_visits import TeamVisits
from gateway.proxy.admission import check_admitted
from gateway.proxy.exchange import exchange_of
from gateway.proxy.relay import reply
from gateway.upstream.headers import Header

# One wording for every problem of a key: nobody learns here which keys there were.
WRONG = N_(
    "This team key is unknown, expired or revoked. Check that it was pasted whole: it begins with pxg_."
)


class TeamLogin:
    """GET is the form; POST takes it: 303 with the cookie, or the form again with what was wrong."""

    def __init__(self, visits: TeamVisits, authenticator: Authenticator, attempts: SignInAttempts) -> None:
        self._visits = visits
        self._authenticator = authenticator
        self._attempts = attempts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "POST":
            await self._post(request, send)
        else:
            await self._form(send, request, next_page(request.query_params.get("next")), 200)

    async def _post(self, request: Request, send: Send) -> None:
        visits, browsers = self._visits, self._visits.browsers
        browsers.refuse_cross_site("POST", request)
        fields = await read_sign_in(request)
        target, exchange = next_page(fields.get("next")), exchange_of(request.scope)
        try:
            who = await self._who(fields.get("key", ""), exchange.client)
            value = None
            if who is not None:
                exchange.principal = who
                check_admitted(who, exchange.client)
                value = await visits.sessions.begin(who.key_id, replaces=visits.cookie(request))
        except GatewayError as error:
            exchange.failure = error.reason
            self._count({429: "limited", 403: "refused"}.get(error.status, "failed"))
            headers = [(name.encode(), text.encode()) for name, text in error.headers.items()]
            await self._form(send, request, target, error.status, error.message, headers)
            return
        if value is None:
            exchange.failure = "invalid_key"
            self._count("refused")
            await self._form(send, request, target, 401, WRONG)
        else:
            self._count("signed_in")
            await see_other(send, target, [browsers.jar.set(visits.cookie_name, value)])

    async def _who(self, key: str, client: Address | None) -> Principal | None:
        """Whose key this is: a good one signs in however often others have failed, and only a wrong one counts.

        What cannot be a key costs no query, so it does not count either. GatewayError 429 for one wrong too many.
        """
        if parse(key, TEAM_KEY) is None:
            return None
        who = await self._authenticator.principal_of(key)
        if who is None:
            number = await self._attempts.take(client)
            await self._attempts.refused(client, number, "unknown team key")
        return who

    async def _form(
        self,
        send: Send,
        request: Request,
        target: str,
        status: int,
        wrong: str | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        view = self._visits.view(request)
        said = None if wrong is None else view.text(wrong)
        page = self._visits.render("sign_in.html", view, next=target, wrong=said)
        await reply(send, status, [*rendering.headers(), *headers], b"" if request.method == "HEAD" else page)

    def _count(self, result: str) -> None:
        self._visits.browsers.metrics.sign_ins.labels(result).inc()


class TeamLogout:
    """POST ends this browser's session, if it has one, and leads to the form."""

    def __init__(self, visits: TeamVisits) -> None:
        self._visits = visits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, visits = Request(scope, receive), self._visits
        visits.browsers.refuse_cross_site("POST", request)
        value = visits.cookie(request)
        if value is not None and await visits.sessions.end(value):
            visits.browsers.metrics.sign_ins.labels("signed_out").inc()
        await see_other(send, LOGIN, [visits.browsers.jar.clear(visits.cookie_name)])
