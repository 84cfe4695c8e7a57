"""Who asks the admin side: an Authorization header, or the session of a browser, checked for cross-site requests."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from gateway import errors
from gateway.access.admin_sessions import AdminSessions, Session
from gateway.access.admin_tokens import AdminPrincipal, AdminTokens
from gateway.pages.browsers import Browsers
from gateway.telemetry import Metrics


class Callers(Browsers):
    """Knows everybody who may use the admin side. `public_url` is the origin people use, if it was configured."""

    def __init__(
        self, tokens: AdminTokens, sessions: AdminSessions, metrics: Metrics, public_url: str | None
    ) -> None:
        super().__init__(metrics, public_url)
        self.tokens = tokens
        self.sessions = sessions

    async def caller(self, method: str, request: HTTPConnection) -> AdminPrincipal:
        """Who sent this. An Authorization header counts alone, whatever cookie comes with it.

        Raises GatewayError 401 for nobody, 403 for a browser's session used by another site.
        """
        if authorization := request.headers.getlist("authorization"):
            return await self.tokens.authenticate(authorization)
        if self.cookie(request) is not None:
            self.refuse_cross_site(method, request)
        session = await self.session(request)
        if session is None:
            raise errors.unauthenticated_admin()
        return session.principal

    async def session(self, request: HTTPConnection, *, seen: bool = True) -> Session | None:
        """The living session of this browser; unless it was `seen`, its idle time goes on."""
        value = self.cookie(request)
        return None if value is None else await self.sessions.find(value, seen=seen)

    def cookie(self, request: HTTPConnection) -> str | None:
        """The session cookie as it was sent, alive or not."""
        return self.read(request, self.jar.session)
