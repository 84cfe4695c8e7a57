"""Refuses a request head that two readers could read differently, before any byte of its body.

A server in front may accept no, two or odd Hosts, any number of headers, and paths in many spellings. Here a
head is either plain or it is refused: framing and Host with 400, sizes with 414 and 431, a path that is not spelt
exactly like a route with 404, never with a redirect.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from itertools import chain

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.proxy.exchange import Exchange, Headers, Named, exchange_of

EXTENSION = "gateway.head"  # where `gateway.server` says that it has checked a head's size and framing

# Asked by load balancers and orchestrators under whatever address they know.
PROBES = frozenset({"/healthz", "/readyz"})
MAX_TARGET = 8 * 1024
MAX_HEADER_BYTES = 16 * 1024
MAX_HEADER_COUNT = 100

_HOST = re.compile(rb"([A-Za-z0-9][A-Za-z0-9._-]{0,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PATH = re.compile(rb"/(?:(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_~.:-]+(?:/|\Z))*")


class RequestGuardMiddleware:
    """`allowed_hosts` are host names without port or brackets; empty allows any well-formed one."""

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().encode() for host in allowed_hosts)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            self._check(scope, exchange_of(scope))
        return self._app(scope, receive, send)  # no frame of this one is kept while the request runs

    def _check(self, scope: Scope, exchange: Exchange) -> None:
        path = scope.get("raw_path") or scope["path"].encode()
        # A copy of our own: a server may append a chunked body's trailers to the list it handed over.
        scope["headers"] = exchange.headers
        named = exchange.named
        if EXTENSION not in (scope.get("extensions") or ()):
            check_size(exchange.headers, path, scope["query_string"])
            check_framing(named)
        check_wishes(named)
        self._check_host(named.get(b"host", []), scope["path"])
        check_path(path)

    def _check_host(self, hosts: list[bytes], path: str) -> None:
        host = _bare(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            raise errors.broken_framing("A request needs exactly one well-formed Host header.")
        if self._hosts and host not in self._hosts and path not in PROBES:
            raise errors.bad_request(
                "This gateway does not answer to that Host; the setting server.allowed_hosts names those it does.",
                "unknown_host",
            )


@lru_cache(maxsize=100)  # a client may send any
def _bare(host: bytes) -> bytes | None:
    """As the setting names it: lower case, IPv6 without brackets, no port, no dot at the end; None when malformed."""
    match = _HOST.fullmatch(host)
    return None if match is None else match[1].lower().strip(b"[]").rstrip(b".")


def check_size(headers: Headers, path: bytes, query: bytes) -> None:
    """Raises 414 or 431 beyond the limits."""
    if len(path) + len(query) + 1 > MAX_TARGET:
        raise errors.uri_too_long(MAX_TARGET)
    if len(headers) > MAX_HEADER_COUNT:
        raise errors.headers_too_large(f"The request has more than {MAX_HEADER_COUNT} header fields.")
    if len(b"".join(chain.from_iterable(headers))) + 4 * len(headers) > MAX_HEADER_BYTES:
        raise errors.headers_too_large(f"The request's headers are larger than {MAX_HEADER_BYTES} bytes.")


def check_framing(named: Named) -> None:
    """Raises when the body's end is not told in exactly one way."""
    lengths, codings = named.get(b"content-length", []), named.get(b"transfer-encoding", [])
    if lengths and codings:
        raise errors.broken_framing("Send Content-Length or Transfer-Encoding, not both.")
    if len(lengths) > 1 or (lengths and not (lengths[0].isdigit() and len(lengths[0]) < 19)):
        raise errors.broken_framing("Content-Length must be one plain number.")
    if len(codings) > 1 or (codings and codings[0].strip().lower() != b"chunked"):
        raise errors.broken_framing("The only Transfer-Encoding understood is 'chunked'.")


def check_wishes(named: Named) -> None:
    """Raises when something is asked that is never done."""
    if b"expect" in named and any(value.strip().lower() != b"100-continue" for value in named[b"expect"]):
        raise errors.expectation_failed()
    if b"content-encoding" in named and any(
        value.strip().lower() not in (b"", b"identity") for value in named[b"content-encoding"]
    ):
        raise errors.unsupported_media_type("Request bodies are read without a Content-Encoding only.")


def check_path(raw_path: bytes) -> None:
    """Raises 404 unless the path is plain: no `//`, no dot segments, nothing percent-encoded."""
    if not _PATH.fullmatch(raw_path):
        # A task's id is no exception, and no other 404 than any unknown task's.
        raise errors.task_not_found() if raw_path.startswith(b"/v1/tasks/") else errors.not_found()
