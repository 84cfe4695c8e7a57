"""Who asks the admin side: an Authorization header, or the session of a browser, checked for cross-site requests."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from gateway import errors
from gateway.access.admin_sessions import AdminSessions, Session
from gateway.access.admin_tokens import AdminPrincipal, AdminTokens
from gateway.admin.cookies import CookieJar, read_cookie
from gateway.admin.cross_site import is_cross_site
from gateway.telemetry import Metrics


class Callers:
    """Knows everybody who may use the admin side. `public_url` is the origin people use, if it was configured."""

    def __init__(
        self, tokens: AdminTokens, sessions: AdminSessions, metrics: Metrics, public_url: str | None
    ) -> None:
        self.tokens = tokens
        self.sessions = sessions
        self.metrics = metrics
        self.public_url = public_url
        self.jar = CookieJar(secure=(public_url or "").startswith("https://"))

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

    async def session(self, request: HTTPConnection) -> Session | None:
        """The living session of this browser."""
        value = self.cookie(request)
        return None if value is None else await self.sessions.find(value)

    def cookie(self, request: HTTPConnection) -> str | None:
        """The session cookie as it was sent, alive or not."""
        return self.read(request, self.jar.session)

    def read(self, request: HTTPConnection, name: str) -> str | None:
        headers = (value.encode("latin-1") for value in request.headers.getlist("cookie"))
        return read_cookie(headers, name)

    def refuse_cross_site(self, method: str, request: HTTPConnection) -> None:
        """GatewayError 403 when another site made this request."""
        headers = request.headers
        if is_cross_site(
            method,
            headers.getlist("sec-fetch-site"),
            headers.getlist("origin"),
            headers.get("host", ""),
            self.public_url,
        ):
            self.metrics.sign_ins.labels("cross_site").inc()
            raise errors.forbidden(
                "Another site sent this request, so nothing was changed. Use the gateway's own pages; programs send "
                " 'Authorization: Bearer pxa_…' instead of the cookie.",
                "cross_site",
            )
