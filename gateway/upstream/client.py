"""Calls of Pixapi: a call goes out, a complete reply comes back.

httpx's transport interface is spoken directly, which leaves out its client's cookies, redirects, decoding and
environment; the transport is our own (ADR 0030). A call ends in a complete `Reply` or in one of two exceptions that
answer the only question that matters for money: was it sent?
"""

from __future__ import annotations

import socket
import ssl
import urllib.request
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import lru_cache

import httpx
import msgspec

from gateway.errors import GatewayError
from gateway.spool import SpoolBudget, SpooledBody
from gateway.trust import trusting
from gateway.upstream import retry_after
from gateway.upstream.deadline import Deadline
from gateway.upstream.decoding import Decoder, UndecodableError
from gateway.upstream.headers import Header
from gateway.upstream.slots import Slots
from gateway.upstream.transport import SENT, Transport

LARGEST_ERROR_BODY = 256 * 1024
_HEEDED = frozenset({b"content-type", b"content-encoding", b"retry-after", b"date"})  # of a reply's headers


class NotSentError(Exception):
    """Certainly no byte of the request left this machine."""


class SentUnknownError(Exception):
    """Bytes left, and no complete reply came back; `timed_out` when the time ran out."""

    def __init__(self, what: str, *, timed_out: bool = False) -> None:
        super().__init__(what)
        self.timed_out = timed_out


class Call(msgspec.Struct, frozen=True):
    """One request: `path` begins with `/v1`; `timeout` in seconds covers it from the connection to the last byte."""

    method: str
    path: str
    headers: list[Header]
    timeout: float
    body: SpooledBody | None = None


class Reply(msgspec.Struct, frozen=True):
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
        base = httpx.URL(base_url)
        # Putting an address together costs more than sending a small request.
        self._address = lru_cache(maxsize=100)(lambda path: base.copy_with(raw_path=path.encode()))
        self._base = base
        self._host = (b"host", base.netloc)
        self._spool = spool
        self._proxy = proxy or _environment_proxy(base)
        self._tls = trusting(ca_file)
        self._extensions = {"timeout": {"connect": connect_timeout}}
        self._pool_wait = pool_wait
        self._slots = Slots(max_connections)
        self._transport: Transport | None = None

    async def open(self) -> None:
        """Makes the transport; connections are made by calls."""
        proxy = httpx.URL(self._proxy) if self._proxy else None
        self._transport = Transport(self._base, self._tls, proxy, heeded=_HEEDED)

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()

    async def send(self, call: Call) -> Reply:
        """The complete reply. Raises NotSentError or SentUnknownError; cancelling counts as neither."""
        assert self._transport is not None, "open() comes first"  # noqa: S101 - a mistake of ours, not input
        if not self._slots.take():
            await self._wait_for_slot()
        try:
            request = self._request(call)
            with Deadline(call.timeout):
                try:
                    response = await self._transport.handle_async_request(request)
                except (httpx.TransportError, GatewayError) as error:
                    raise _failure(request, error) from error
                return await self._reply(response)
        except TimeoutError:
            if SENT not in request.extensions:
                raise NotSentError("connecting took too long") from None
            raise SentUnknownError(
                f"Pixapi gave no answer within {call.timeout:g} s", timed_out=True
            ) from None
        finally:
            self._slots.give_back()

    async def _wait_for_slot(self) -> None:
        try:
            await self._slots.wait(self._pool_wait)
        except TimeoutError:
            raise NotSentError("every upstream connection is in use") from None

    async def _reply(self, response: httpx.Response) -> Reply:
        """All of a reply; GatewayError when there is no room for it."""
        heeded = _heeded(response.headers.raw)
        coding, wait = _text(heeded, b"content-encoding"), _text(heeded, b"retry-after")
        body = self._spool.body()
        try:
            if isinstance(response.stream, httpx.ByteStream) and not coding:
                await body.write(b"".join(response.stream))
            else:
                await _receive(response, body, Decoder(coding or ""))
        except BaseException:
            body.close()
            raise
        return Reply(
            status=response.status_code,
            content_type=heeded.get(b"content-type") or None,
            retry_after=retry_after.seconds(wait, datetime.now(UTC)) if wait else None,
            body=body,
            date=_text(heeded, b"date"),
        )

    def _request(self, call: Call) -> httpx.Request:
        """NotSentError for an address that cannot be."""
        try:
            return httpx.Request(
                call.method,
                self._address(call.path),
                headers=[self._host, *call.headers],
                stream=_stream(call.body),
                extensions=self._extensions,
            )
        except (ValueError, httpx.InvalidURL) as error:
            raise NotSentError("there is no such address") from error


def _stream(body: SpooledBody | None) -> httpx.ByteStream | _Upload:
    if body is None:
        return httpx.ByteStream(b"")
    return httpx.ByteStream(body.read_small()) if body.in_memory else _Upload(body)


class _Upload(httpx.AsyncByteStream):
    """A spooled body as httpx wants it."""

    def __init__(self, body: SpooledBody) -> None:
        self._pieces = body.chunks()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        await self._pieces.aclose()


async def _receive(response: httpx.Response, body: SpooledBody, decoder: Decoder) -> None:
    """Reads the whole reply; of an error no more than anybody reads."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - tells the type checker
    limit = None if 200 <= response.status_code < 300 else LARGEST_ERROR_BODY
    try:
        async for chunk in stream:
            for plain in decoder.feed(chunk):
                await body.write(plain)
                if limit is not None and body.size > limit:
                    return
        decoder.finish()
    except UndecodableError as error:
        raise SentUnknownError("Pixapi's answer could not be decoded") from error
    except httpx.TransportError as error:
        raise SentUnknownError("Pixapi's answer was cut short") from error
    finally:
        await stream.aclose()


def _failure(request: httpx.Request, error: httpx.TransportError | GatewayError) -> Exception:
    """What it means that no reply began."""
    if isinstance(error, GatewayError):
        return SentUnknownError(f"The request could not be read to its end ({error.reason})")
    if SENT in request.extensions:
        return SentUnknownError("The connection to Pixapi was lost before an answer came")
    return NotSentError(_reason(error))


def _reason(error: httpx.TransportError) -> str:
    """Why nothing was sent."""
    if isinstance(error.__cause__, ssl.SSLError):
        return "TLS failed: check upstream.ca_file"
    if isinstance(error.__cause__, socket.gaierror):
        return "its name was not found"
    return f"{error}: check upstream.proxy" if isinstance(error, httpx.ProxyError) else str(error)


def _heeded(headers: list[Header]) -> dict[bytes, bytes]:
    """A reply's headers by their names in small letters, several of one name as one; of content types the first.
    Their bytes as they came: httpx's decoding guesses a charset."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        lower = name.lower()
        if lower not in found:
            found[lower] = value
        elif lower != b"content-type":
            found[lower] += b", " + value
    return found


def _text(heeded: dict[bytes, bytes], name: bytes) -> str | None:
    value = heeded.get(name)
    return value.decode("latin-1") if value else None


def _environment_proxy(url: httpx.URL) -> str | None:
    """What HTTPS_PROXY (or HTTP_PROXY) and NO_PROXY say of this origin, read once."""
    if urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    # Other programs take `proxy:3128` for http, so it is often written like that.
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy
