"""/admin/oidc/start and /admin/oidc/callback: to the provider, and back as somebody it knows.

Authorization code with PKCE. What the provider says becomes a role by its groups, and a session of
ours; its tokens are not kept.
"""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.access.admin_tokens import AdminPrincipal
from gateway.access.key_format import Peppers
from gateway.access.sign_in_attempts import SignInAttempts
from gateway.admin import oidc_round
from gateway.admin.callers import Callers
from gateway.admin.next_page import FRONT, next_page
from gateway.admin.oidc_round import Round
from gateway.admin.oidc_terms import Identity, Provider, ProviderError, TokenRefusedError, role_of
from gateway.admin.sign_in_pages import SignInPages
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.pages import rendering
from gateway.pages.forms import see_other
from gateway.pages.language import N_
from gateway.proxy.exchange import exchange_of
from gateway.proxy.relay import reply

log = logging.getLogger("gateway.admin.oidc")


class _RefusedError(Exception):
    """A sign-in that ends with a page: its status, title and text, and what it counts as."""

    def __init__(self, status: int, title: str, text: str, result: str) -> None:
        super().__init__(title)
        self.status, self.title, self.text, self.result = status, title, text, result


@dataclass(frozen=True, slots=True)
class OidcSignIn:
    """What both ends of the round work with; without a provider neither end is there."""

    provider: Provider | None
    callers: Callers
    attempts: SignInAttempts
    peppers: Peppers
    clock: Clock
    pages: SignInPages

    def known(self) -> Provider:
        """The provider; GatewayError 404 when single sign-on is not configured."""
        if self.provider is None:
            raise errors.not_found()
        return self.provider

    def now(self) -> float:
        return self.clock.now().timestamp()

    async def refuse(
        self,
        send: Send,
        request: Request,
        refused: _RefusedError,
        target: str,
        *headers: tuple[bytes, bytes],
    ) -> None:
        """Answers with the page that says why."""
        self.callers.metrics.sign_ins.labels(refused.result).inc()
        body = self.pages.notice(request, refused.title, refused.text, target)
        await reply(send, refused.status, [*rendering.headers(), *headers], body)


class OidcStart:
    """GET: 303 to the provider, with the cookie that the way back needs. `next` is a page below /admin/."""

    def __init__(self, oidc: OidcSignIn) -> None:
        self._oidc = oidc

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        oidc = self._oidc
        provider = oidc.known()
        request = Request(scope, receive)
        target = next_page(request.query_params.get("next"))
        one = oidc_round.begin(target, oidc.now())
        try:
            address = await provider.authorization_url(one.secrets)
        except ProviderError as error:
            await oidc.refuse(send, request, _down(error), target)
            return
        jar = oidc.callers.jar
        kept = jar.set(jar.round, oidc_round.pack(one, oidc.peppers), oidc_round.LIVES)
        await see_other(send, address, [kept])


class OidcCallback:
    """GET with the provider's answer: 303 to the page that was wanted, signed in; else a page that says why not."""

    def __init__(self, oidc: OidcSignIn) -> None:
        self._oidc = oidc
        self._callers = oidc.callers
        self._attempts = oidc.attempts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        oidc, request, jar = self._oidc, Request(scope, receive), self._callers.jar
        provider = oidc.known()
        clear = jar.clear(jar.round)
        exchange = exchange_of(scope)
        target = FRONT
        try:
            one = self._round(request)
            target = one.next_path
            who = await self._who(provider, request, one)
            value = await self._callers.sessions.begin(who, replaces=self._callers.cookie(request))
        except _RefusedError as refused:
            exchange.failure = f"sign_in_{refused.result}"
            await oidc.refuse(send, request, refused, target, clear)
        except GatewayError as error:
            exchange.failure = error.reason
            result = "limited" if error.status == 429 else "failed"
            waits = [(name.encode(), text.encode()) for name, text in error.headers.items()]
            page = _RefusedError(error.status, N_("Not signed in"), error.message, result)
            await oidc.refuse(send, request, page, target, clear, *waits)
        else:
            self._callers.metrics.sign_ins.labels("signed_in").inc()
            await see_other(send, target, [clear, jar.set(jar.session, value)])

    def _round(self, request: Request) -> Round:
        """The round this browser began, when the provider's answer belongs to it."""
        value = self._callers.read(request, self._callers.jar.round)
        one = None if value is None else oidc_round.unpack(value, self._oidc.peppers, self._oidc.now())
        state = request.query_params.getlist("state")
        if (
            one is None
            or len(state) != 1
            or not hmac.compare_digest(state[0].encode(), one.secrets.state.encode())
        ):
            raise _RefusedError(
                400,
                N_("This sign-in has expired"),
                "It was begun more than ten minutes ago, in another tab, or not by this browser. Start again.",
                "refused",
            )
        return one

    async def _who(self, provider: Provider, request: Request, one: Round) -> AdminPrincipal:
        client = exchange_of(request.scope).client
        number = await self._attempts.take(client)
        try:
            identity = await self._identity(provider, request, one)
        except TokenRefusedError as error:
            log.warning("sign-in refused", extra={"detail": str(error)})
            await self._attempts.refused(client, number, str(error))
            text = "The provider's answer could not be verified. Start again; the log says what was wrong."
            raise _RefusedError(401, N_("Not signed in"), text, "refused") from None
        except ProviderError as error:
            await self._attempts.give_back(client)
            raise _down(error) from None
        except _RefusedError:
            await self._attempts.give_back(client)
            raise
        await self._attempts.give_back(client)
        return _principal(provider, identity)

    async def _identity(self, provider: Provider, request: Request, one: Round) -> Identity:
        given = request.query_params
        if given.get("iss", provider.options.issuer) != provider.options.issuer:
            raise TokenRefusedError("the answer is another provider's")
        if error := given.get("error"):
            word = error[:60] if error.isprintable() else "an error"
            raise _RefusedError(403, N_("Not signed in"), f"The provider says: {word}.", "refused")
        if not await self._attempts.use_state(one.secrets.state):
            raise TokenRefusedError("the answer came a second time")
        code = given.getlist("code")
        if len(code) != 1 or not code[0]:
            raise TokenRefusedError("the answer holds no code")
        return await provider.identity(code[0], one.secrets)


def _principal(provider: Provider, identity: Identity) -> AdminPrincipal:
    options = provider.options
    role = role_of(identity.groups, options)
    if role is None:
        wanted = "; ".join(
            f"{named}: {', '.join(groups)}"
            for named, groups in (
                ("role admin", options.admin_groups),
                ("role viewer", options.viewer_groups),
            )
            if groups
        )
        raise _RefusedError(
            403,
            N_("No access"),
            f"{identity.name} is signed in at the provider, but in none of the groups that may use this gateway "
            f"({wanted}).",
            "no_role",
        )
    return AdminPrincipal(f"oidc:{identity.subject}", role, identity.name)


def _down(error: ProviderError) -> _RefusedError:
    log.warning("the sign-in provider cannot be used", extra={"detail": str(error)})
    text = "The sign-in provider cannot be reached at the moment. Try again shortly, or sign in with an admin token."
    return _RefusedError(503, N_("Single sign-on is not available"), text, "unavailable")
