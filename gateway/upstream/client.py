"""The one place that speaks HTTP to Pixapi: httpx's types over aiohttp's connections.

httpx's own pool is not used (ADR 0002); the transport is called directly, which leaves out the client's cookies,
redirects, decoding and environment. A call ends in a complete `Reply` or in one of two exceptions that answer the
only question that matters for money: was it sent?
"""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from gateway.spool import SpoolBudget, SpooledBody
from gateway.trust import trusting
from gateway.upstream import retry_after
from gateway.upstream.decoding import Decoder, UndecodableError
from gateway.upstream.headers import Header

LARGEST_ERROR_BODY = 256 * 1024
# Shorter than what common servers and load balancers keep idle connections for, so that a paid call does not meet a
# connection that is being closed.
KEEP_ALIVE_SECONDS = 4.0
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class NotSentError(Exception):
    """Certainly no byte of the request left this machine."""


class SentUnknownError(Exception):
    """Bytes left, and no complete reply came back; `timed_out` when the time ran out."""

    def __init__(self, what: str, *, timed_out: bool = False) -> None:
        super().__init__(what)
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Call:
    """One request: `path` begins with `/v1`; `timeout` in seconds covers it from the connection to the last byte."""

    method: str
    path: str
    headers: list[Header]
    timeout: float
    body: SpooledBody | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete reply. The receiver closes `body`; `date` is when Pixapi says that it was made."""

    status: int
    content_type: bytes | None
    retry_after: float | None
    body: SpooledBody
    date: str | None = None


class UpstreamClient:
    """Sends calls to one origin. `proxy` overrides HTTPS_PROXY and NO_PROXY; times in seconds."""

    def __init__(
        self,
        base_url: str,
        spool: SpoolBudget,
        *,
        proxy: str | None = None,
        ca_file: str | None = None,
        max_connections: int = 1100,
        connect_timeout: float = 5.0,
        pool_wait: float = 2.0,
    ) -> None:
        self._base = httpx.URL(base_url)
        self._spool = spool
        self._proxy = proxy or _environment_proxy(self._base)
        self._tls = trusting(ca_file)
        self._max_connections = max_connections
        self._timeouts = {"connect": connect_timeout, "read": None, "pool": connect_timeout + pool_wait}
        self._pool_wait = pool_wait
        self._slots = asyncio.Semaphore(max_connections)
        self._transport: AiohttpTransport | None = None

    async def open(self) -> None:
        """Makes the session; connections are made by calls."""
        connector = aiohttp.TCPConnector(
            limit=0,  # the semaphore bounds and times the wait
            ssl=self._tls,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ttl_dns_cache=60,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=256 * 1024,
            max_line_size=32 * 1024,
            max_field_size=32 * 1024,
        )
        proxy = httpx.Proxy(self._proxy) if self._proxy else None
        self._transport = AiohttpTransport(client=session, proxy=proxy, verify=self._tls)

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()

    async def send(self, call: Call) -> Reply:
        """The complete reply. Raises NotSentError or SentUnknownError; cancelling counts as neither."""
        try:
            async with asyncio.timeout(self._pool_wait):
                await self._slots.acquire()
        except TimeoutError:
            raise NotSentError("every upstream connection is in use") from None
        try:
            async with asyncio.timeout(call.timeout):
                return await self._exchange(call)
        except TimeoutError:
            raise SentUnknownError(
                f"Pixapi gave no answer within {call.timeout:g} s", timed_out=True
            ) from None
        finally:
            self._slots.release()

    async def _exchange(self, call: Call) -> Reply:
        request = self._request(call)
        assert self._transport is not None, "open() comes first"  # noqa: S101 - a mistake of ours, not input
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error
        body = self._spool.body()
        try:
            await _receive(response, body)
        except BaseException:
            body.close()
            raise
        finally:
            await response.aclose()
        return Reply(
            status=response.status_code,
            content_type=_content_type(response.headers),
            retry_after=retry_after.seconds(response.headers.get("retry-after"), datetime.now(UTC)),
            body=body,
            date=response.headers.get("date"),
        )

    def _request(self, call: Call) -> httpx.Request:
        """NotSentError for what cannot be put on the wire: aiohttp would find that out later, by a ValueError."""
        if any(_CONTROL.search(name) or _CONTROL.search(value) for name, value in call.headers):
            raise NotSentError("a header holds control characters")
        try:
            return httpx.Request(
                call.method,
                self._base.copy_with(raw_path=call.path.encode()),
                headers=call.headers,
                stream=None if call.body is None else _Upload(call.body),
                extensions={"timeout": self._timeouts},
            )
        except (ValueError, httpx.InvalidURL) as error:
            raise NotSentError("there is no such address") from error


class _Upload(httpx.AsyncByteStream):
    """A spooled body as httpx wants it."""

    def __init__(self, body: SpooledBody) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.chunks()


async def _receive(response: httpx.Response, body: SpooledBody) -> None:
    """Reads the whole reply; of an error no more than anybody reads."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - tells the type checker
    limit = None if response.is_success else LARGEST_ERROR_BODY
    decoder = Decoder(response.headers.get("content-encoding", ""))
    try:
        async for chunk in stream:
            for plain in decoder.feed(chunk):
                await body.write(plain)
                if limit is not None and body.size > limit:
                    return
        decoder.finish()
    except UndecodableError as error:
        raise SentUnknownError("Pixapi's answer could not be decoded") from error
    except (httpx.HTTPError, aiohttp.ClientError, OSError) as error:
        raise SentUnknownError("Pixapi's answer was cut short") from error


def _translated(error: Exception) -> NotSentError | SentUnknownError:
    """By what aiohttp raised: httpx-aiohttp's names call a dropped connection a connect time-out."""
    cause = error if isinstance(error, (aiohttp.ClientError, OSError)) else error.__cause__
    never = (
        aiohttp.ClientConnectorError,
        aiohttp.ConnectionTimeoutError,
        aiohttp.ClientHttpProxyError,  # a refused CONNECT: there is no tunnel to send through
        aiohttp.InvalidURL,
    )
    if isinstance(cause, never):
        return NotSentError(_reason(cause))
    return SentUnknownError("The connection to Pixapi was lost before an answer came")


def _reason(cause: BaseException) -> str:
    if isinstance(cause, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "TLS failed: check upstream.ca_file"
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return "its name was not found"
    if isinstance(cause, aiohttp.ClientProxyConnectionError):
        return "the proxy was not reached: check upstream.proxy"
    if isinstance(cause, aiohttp.ClientHttpProxyError):
        return f"the proxy refused with status {cause.status}: check upstream.proxy"
    return "connecting took too long" if isinstance(cause, TimeoutError) else "no connection"


def _content_type(headers: httpx.Headers) -> bytes | None:
    """The first one's bytes as they came: decoding guesses a charset."""
    return next((value for name, value in headers.raw if name.lower() == b"content-type"), None) or None


def _environment_proxy(url: httpx.URL) -> str | None:
    """What HTTPS_PROXY (or HTTP_PROXY) and NO_PROXY say of this origin, read once."""
    if urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    # Other programs take `proxy:3128` for http, so it is often written like that.
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy
