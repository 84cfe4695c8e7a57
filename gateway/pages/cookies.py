"""The cookies of the pages: their names and attributes, and reading them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CookieJar:
    """Names and attributes by whether people reach the gateway over https.

    Over https a name begins with `__Host-`: browsers then take the cookie from this very host alone, with Secure and
    the whole path, so that no neighbouring host can plant one. SameSite is Lax: a link from a chat opens the dashboard
    signed in, and what changes something is checked apart (`cross_site`).
    """

    secure: bool

    @property
    def session(self) -> str:
        return self._name("pxg_session")

    @property
    def team_session(self) -> str:
        """Of somebody who signed in with a team key; the same browser may have both."""
        return self._name("pxg_team_session")

    @property
    def round(self) -> str:
        """What a browser keeps while its user is at the provider."""
        return self._name("pxg_sign_in")

    def set(self, name: str, value: str, max_age: int | None = None) -> tuple[bytes, bytes]:
        """The header that sets a cookie; without `max_age` until the browser is closed, with 0 it clears it."""
        parts = [f"{name}={value}", "Path=/", "HttpOnly", "SameSite=Lax"]
        if self.secure:
            parts.append("Secure")
        if max_age is not None:
            parts.append(f"Max-Age={max_age}")
        return b"set-cookie", "; ".join(parts).encode()

    def clear(self, name: str) -> tuple[bytes, bytes]:
        return self.set(name, "", 0)

    def _name(self, name: str) -> str:
        return f"__Host-{name}" if self.secure else name


def read_cookie(headers: Iterable[bytes], name: str) -> str | None:
    """The cookie's value; None when there is none, or more than one, which only somebody else can have added."""
    found = [
        value.strip()
        for header in headers
        for key, _, value in (pair.partition("=") for pair in header.decode("latin-1").split(";"))
        if key.strip() == name
    ]
    return found[0] if len(found) == 1 and found[0] else None
