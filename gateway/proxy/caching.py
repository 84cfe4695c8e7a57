"""HTTP's rules of caching: validators, what a client has already, what it wants anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import NamedTuple

from starlette.types import Scope

from gateway.proxy.exchange import Exchange

Header = tuple[bytes, bytes]
TAG_BYTES = 12


class Found(NamedTuple):
    """An answer from an entry: its body and its headers, without a length."""

    body: bytes
    headers: list[Header]


# A route's way to answer from what is fresh; None passes the request on.
Rule = Callable[[Scope], Awaitable[Found | None]]


def etag_of(body: bytes) -> bytes:
    """A strong validator: the same bytes, the same tag, in every process."""
    return b'"%s"' % blake2b(body, digest_size=TAG_BYTES).hexdigest().encode()


def matches(exchange: Exchange, etag: bytes) -> bool:
    """Whether `if-none-match` names this tag, or any."""
    values = exchange.header_values(b"if-none-match")
    if not values:
        return False
    tags = [tag.strip() for value in values for tag in value.split(b",")]
    return any(tag == b"*" or tag.removeprefix(b"W/") == etag for tag in tags)


def asks_anew(exchange: Exchange) -> bool:
    """Whether the client wants no kept answer: `cache-control: no-cache`, or `max-age=0`, which says the same."""
    values = exchange.header_values(b"cache-control")
    if not values:
        return False
    words = {word.strip().lower() for value in values for word in value.split(b",")}
    return b"no-cache" in words or b"max-age=0" in words
