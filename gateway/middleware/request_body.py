"""Reads a paid call's body once and strictly: spooled as it was sent, with the fields that price it understood."""

from __future__ import annotations

import asyncio
import hashlib

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.proxy import generation, strict_json
from gateway.proxy.exchange import Exchange, RequestBody, exchange_of
from gateway.proxy.generation import Generation, Operation
from gateway.proxy.leaving import ClientLeftError
from gateway.proxy.multipart import FormLimits, FormReader, boundary_of
from gateway.proxy.paid_calls import PaidCalls
from gateway.spool import SpoolBudget, SpooledBody

# After its first half minute a body comes at this rate on average, or its sender is holding a place.
SLOW_AFTER_SECONDS = 30.0
SLOWEST_RATE = 1024  # bytes a second


class RequestBodyMiddleware:
    """Puts the body into the exchange and closes it when nothing needs it any more."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        operation: Operation,
        spool: SpoolBudget,
        paid_calls: PaidCalls,
        max_json_bytes: int,
        form_limits: FormLimits,
        idle_timeout: float,
    ) -> None:
        self._app = app
        self._operation = operation
        self._spool = spool
        self._paid_calls = paid_calls
        self._max_json_bytes = max_json_bytes
        self._form_limits = form_limits
        self._idle_timeout = idle_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        exchange.operation = self._operation
        _refuse_async_query(scope["query_string"], self._operation)
        self._paid_calls.check_room()
        raw = self._spool.body()
        try:
            exchange.body = await self._read(exchange, receive, raw)
            await self._app(scope, receive, send)
        except ClientLeftError:
            return
        finally:
            if exchange.hold is None or not exchange.hold.claimed:
                raw.close()

    async def _read(self, exchange: Exchange, receive: Receive, raw: SpooledBody) -> RequestBody:
        content_type = exchange.header_values(b"content-type")
        kind = content_type[0].partition(b";")[0].strip().lower() if len(content_type) == 1 else b""
        if kind == b"application/json":
            _check_charset(content_type[0])
            parsed, digest = await self._json(exchange, receive, raw)
        elif kind == b"multipart/form-data" and self._operation.takes_files:
            parsed, digest = await self._form(exchange, receive, raw, content_type[0])
        else:
            accepted = "application/json" + (" or multipart/form-data" if self._operation.takes_files else "")
            raise errors.unsupported_media_type(f"Send exactly one Content-Type, {accepted}.")
        named = b"%s %s " % (self._operation.path.encode(), kind)
        return RequestBody(raw, content_type[0], parsed, hashlib.sha256(named + digest).digest())

    async def _json(self, exchange: Exchange, receive: Receive, raw: SpooledBody) -> tuple[Generation, bytes]:
        limit = self._max_json_bytes
        _check_length(exchange, limit, "A JSON body")
        document = bytes(await _Incoming(receive, self._idle_timeout).read(limit + 1))
        if len(document) > limit:
            raise errors.too_large(f"A JSON body may have {limit} bytes.")
        await raw.write(document)
        digest = hashlib.sha256(document).digest()
        return generation.from_json(strict_json.parse(document), self._operation), digest

    async def _form(
        self, exchange: Exchange, receive: Receive, raw: SpooledBody, content_type: bytes
    ) -> tuple[Generation, bytes]:
        if exchange.principal is None:
            raise errors.internal_error()
        # Repeats are looked for among the team's calls alone, and nobody but the team knows this id.
        secret = exchange.principal.team_id.bytes
        reader = FormReader(boundary_of(content_type), self._form_limits, secret)
        _check_length(exchange, self._form_limits.max_bytes, "A form")
        incoming = _Incoming(receive, self._idle_timeout)
        while incoming.more:
            piece = await incoming.read()
            reader.feed(piece)
            await raw.write(piece)
        return generation.from_form(reader.finish(), self._operation), reader.digest


class _Incoming:
    """A body as it comes from the client; `more` until all of it has been read."""

    def __init__(self, receive: Receive, idle_timeout: float) -> None:
        self.more = True
        self._receive = receive
        self._idle_timeout = idle_timeout
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._size = 0

    async def read(self, least: int = 1) -> bytes | bytearray:
        """The next `least` bytes with whatever came along, or the rest.

        Raises ClientLeftError, and GatewayError 408 when it comes too slowly.
        """
        try:
            async with asyncio.timeout(self._idle_timeout) as idle:
                found = await self._next()
                if len(found) >= least or not self.more:
                    return found
                joined = bytearray(found)
                while len(joined) < least and self.more:
                    idle.reschedule(self._loop.time() + self._idle_timeout)
                    joined += await self._next()
                return joined
        except TimeoutError:
            raise errors.request_timeout(
                f"No byte of the request's body came for {self._idle_timeout:g} s; nothing was sent to Pixapi."
            ) from None

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        chunk: bytes = message.get("body", b"")
        self.more = message.get("more_body", False)
        self._size += len(chunk)
        if self.more and trickles(self._size, self._loop.time() - self._began):
            raise errors.request_timeout(
                f"The request's body came at less than {SLOWEST_RATE} bytes a second; nothing was sent to Pixapi."
            )
        return chunk


def trickles(size: int, seconds: float) -> bool:
    """Whether a body of which so much has come in so long comes too slowly to wait for."""
    return seconds >= SLOW_AFTER_SECONDS and size < SLOWEST_RATE * seconds


def _check_length(exchange: Exchange, limit: int, what: str) -> None:
    """Refuses by Content-Length, before the body."""
    length = exchange.header(b"content-length")
    if length is not None and int(length) > limit:
        raise errors.too_large(f"{what} may have {limit} bytes; this one has {int(length)}.")


def _check_charset(content_type: bytes) -> None:
    for parameter in content_type.lower().split(b";")[1:]:
        name, _, value = parameter.strip().partition(b"=")
        if name.strip() == b"charset" and value.strip(b' "') not in (b"utf-8", b"utf8"):
            raise errors.unsupported_media_type("JSON is read as UTF-8 only.")


def _refuse_async_query(query: bytes, operation: Operation) -> None:
    for pair in query.split(b"&"):
        name, _, value = pair.lower().partition(b"=")
        if name == b"async" and value not in (b"false", b"0"):
            raise errors.bad_request(
                f"'?async=…' is not supported any more; send the request to {operation.async_path}."
            )
