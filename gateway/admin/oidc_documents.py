"""Documents of a sign-in provider, kept for an hour once they have been checked, and read once for all who wait.

A provider that is down is asked every ten seconds at most, however many people try. What has been kept for longer than
an hour is still served while it is being read anew, and while that fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.admin.oidc_terms import ProviderError
from gateway.clock import Clock

KEPT_SECONDS = 3600.0
FAILED_SECONDS = 10.0
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")

Document = dict[str, Any]
Check = Callable[[Document], None]


@dataclass(slots=True)
class _Entry:
    """One address: what was last good there and when it was read, how the last read failed, and a read under way."""

    found: Document | None = None
    read_at: float = 0.0
    failure: ProviderError | None = None
    failed_at: float = 0.0
    reading: asyncio.Task[Document] | None = None


class Documents:
    """`read` asks for a JSON object and raises ProviderError."""

    def __init__(self, read: Callable[[str], Awaitable[Document]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    async def get(self, url: str, check: Check, *, again: bool = False) -> Document:
        """The document at `url`, which `check` has let through; ProviderError. `again`: what is kept will not do."""
        entry, now = self._entries.setdefault(url, _Entry()), self._clock.monotonic()
        fresh = now < entry.read_at + KEPT_SECONDS
        if entry.found is not None and fresh and not again:
            return entry.found
        failure = entry.failure if now < entry.failed_at + FAILED_SECONDS else None
        if entry.reading is None and failure is None:
            entry.reading = asyncio.create_task(self._renew(entry, url, check))
            entry.reading.add_done_callback(_seen)
        if entry.found is not None and not again:
            return entry.found
        if entry.reading is None:
            raise ProviderError(str(failure))
        # One who goes away does not take the answer from the others.
        return await asyncio.shield(entry.reading)

    async def _renew(self, entry: _Entry, url: str, check: Check) -> Document:
        try:
            found = await self._read(url)
            check(found)
        except ProviderError as error:
            entry.failure, entry.failed_at = error, self._clock.monotonic()
            raise
        finally:
            entry.reading = None
        entry.found, entry.read_at, entry.failure = found, self._clock.monotonic(), None
        return found


def checked_discovery(issuer: str, found: Document) -> None:
    """ProviderError unless this is the discovery document of `issuer`, with addresses that can be used."""
    if found.get("issuer") != issuer:
        raise ProviderError(
            f"the discovery document is not that of {issuer}: admin.oidc_issuer must be its 'issuer'"
        )
    for name in ENDPOINTS:
        if not _usable(found.get(name), issuer):
            raise ProviderError(f"the discovery document has no usable {name}")


def checked_keys(found: Document) -> None:
    """ProviderError unless there is a key."""
    keys = found.get("keys")
    if not isinstance(keys, list) or not any(isinstance(key, dict) for key in keys):
        raise ProviderError("the provider lists no keys")


def _usable(address: object, issuer: str) -> bool:
    if not isinstance(address, str):
        return False
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and parts.scheme in ("https", urlsplit(issuer).scheme)


def _seen(reading: asyncio.Task[Document]) -> None:
    """Nobody may be waiting for a document that is read anew; its failure is kept all the same."""
    if not reading.cancelled():
        reading.exception()
