"""Whether a request that changes something was made by our own pages. Pure.

The rule is that of OWASP's cheat sheet and of Go's `http.CrossOriginProtection`: Sec-Fetch-Site decides; browsers send
it to https and to localhost only, so without it the Origin is compared with our own; a request with neither header
is not a browser's (each has sent Origin with a POST to another site since 2020), and what is no browser carries no
cookie it was not given.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_cross_site(
    method: str, fetch_site: Sequence[str], origin: Sequence[str], host: str, public_url: str | None
) -> bool:
    """Whether to refuse. `fetch_site` and `origin` are all values of these headers, `host` the Host header."""
    if method in SAFE_METHODS:
        return False
    if fetch_site:
        return any(value not in ("same-origin", "none") for value in fetch_site)
    return any(not _is_own(value, host, public_url) for value in origin)


def _is_own(origin: str, host: str, public_url: str | None) -> bool:
    """Whether this origin is the host that was asked. Schemes are not compared: TLS ends before us."""
    scheme, authority = _authority(origin)
    if scheme is None:
        return False
    if public_url is not None and (scheme, authority) == _authority(public_url):
        return True  # a proxy in front has changed the Host
    return authority == _authority(f"{scheme}://{host}")[1]


def _authority(url: str) -> tuple[str | None, tuple[str, int] | None]:
    """Scheme, and host with its real port; (None, None) for what is no origin, such as `null`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None, None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        return None, None
    return parts.scheme, (parts.hostname.rstrip("."), port or _DEFAULT_PORTS[parts.scheme])
