"""Browsers as the pages meet them: their cookies, and requests that another site made them send."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from gateway import errors
from gateway.pages.cookies import CookieJar, read_cookie
from gateway.pages.cross_site import is_cross_site
from gateway.pages.view import LOOK_COOKIE
from gateway.telemetry import Metrics


class Browsers:
    """Reads cookies and refuses other sites. `public_url` is the origin people use, if it was configured."""

    def __init__(self, metrics: Metrics, public_url: str | None) -> None:
        self.metrics = metrics
        self.public_url = public_url
        self.jar = CookieJar(secure=(public_url or "").startswith("https://"))

    def read(self, request: HTTPConnection, name: str) -> str | None:
        """The cookie of this name as it was sent."""
        headers = (value.encode("latin-1") for value in request.headers.getlist("cookie"))
        return read_cookie(headers, name)

    def look(self, request: HTTPConnection) -> str | None:
        """The cookie for language and theme."""
        return self.read(request, LOOK_COOKIE)

    def origin(self, request: HTTPConnection) -> str:
        """Where this browser reaches the gateway."""
        return self.public_url or f"{request.url.scheme}://{request.url.netloc}"

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
                "'Authorization: Bearer …' instead of the cookie.",
                "cross_site",
            )
