"""Reads a paid call's body once and strictly: spooled as it was sent, with the fields that price it understood.

Who finds every seat among the paid calls taken is refused before the body. The seat itself is taken behind it, so that
nobody holds one by sending slowly, and before anything is asked, counted or held.
"""

from __future__ import annotations

import asyncio
import hashlib
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import errors
from gateway.proxy import generation, strict_json
from gateway.proxy.exchange import Exchange, RequestBody, exchange_of
from gateway.proxy.generation import Generation, Operation
from gateway.proxy.leaving import ClientLeftError, may_be_asked
from gateway.proxy.multipart import FormLimits, FormReader, boundary_of
from gateway.proxy.paid_calls import PaidCalls
from gateway.spool import SpoolBudget, SpooledBody

# After its first half minute a body comes at this rate on average, or its sender is holding a place.
SLOW_AFTER_SECONDS = 30.0
SLOWEST_RATE = 1024  # bytes a second


class RequestBodyMiddleware:
    """Puts body and seat into the exchange, and takes care of both until a call was started with them."""

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
        self._path = operation.path.encode()
        self._spool = spool
        self._paid_calls = paid_calls
        self._max_json_bytes = max_json_bytes
        self._form_limits = form_limits
        self._idle_timeout = idle_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        exchange.operation = self._operation
        if query := scope["query_string"]:
            _refuse_async_query(query, self._operation)
        self._paid_calls.check_room()
        raw = self._spool.body()
        try:
            exchange.body = await self._read(exchange, receive, raw)
            exchange.seat = self._paid_calls.take_seat()
            await self._app(scope, receive, send)
        except ClientLeftError:
            return
        finally:
            if exchange.seat is not None:
                exchange.seat.close()
            if exchange.hold is None or not exchange.hold.claimed:
                raw.close()

    async def _read(self, exchange: Exchange, receive: Receive, raw: SpooledBody) -> RequestBody:
        given = exchange.header_values(b"content-type")
        content_type = given[0] if len(given) == 1 else b""
        kind, _, parameters = content_type.partition(b";")
        kind = kind.strip().lower()
        if kind == b"application/json":
            if parameters:
                _check_charset(parameters)
            parsed, digest = await self._json(exchange, receive, raw)
        elif kind == b"multipart/form-data" and self._operation.takes_files:
            parsed, digest = await self._form(exchange, receive, raw, content_type)
        else:
            accepted = "application/json" + (" or multipart/form-data" if self._operation.takes_files else "")
            raise errors.unsupported_media_type(f"Send exactly one Content-Type, {accepted}.")
        fingerprint = hashlib.sha256(b"%b %b %b" % (self._path, kind, digest)).digest()
        return RequestBody(raw, content_type, parsed, fingerprint)

    async def _json(self, exchange: Exchange, receive: Receive, raw: SpooledBody) -> tuple[Generation, bytes]:
        limit = self._max_json_bytes
        _check_length(exchange, limit, "A JSON body")
        document = await _Incoming(receive, self._idle_timeout).read(limit + 1)
        if len(document) > limit:
            raise errors.too_large(f"A JSON body may have {limit} bytes.")
        if not raw.keep(document):
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

    __slots__ = ("_began", "_idle_timeout", "_receive", "_size", "more")

    def __init__(self, receive: Receive, idle_timeout: float) -> None:
        self.more = True
        self._receive = receive
        self._idle_timeout = idle_timeout
        self._began = monotonic()
        self._size = 0

    async def read(self, least: int = 1) -> bytes:
        """The next `least` bytes with whatever came along, or the rest.

        Raises ClientLeftError, and GatewayError 408 when it comes too slowly.
        """
        message = _at_once(self._receive) if may_be_asked(self._receive) else None
        found = b"" if message is None else self._piece(message)
        if self.more and len(found) < least:
            return await self._wait_for(least, found)
        return found

    async def _wait_for(self, least: int, found: bytes) -> bytes:
        """`found` and what follows it, likewise."""
        loop = asyncio.get_running_loop()
        joined = bytearray(found)
        try:
            async with asyncio.timeout(self._idle_timeout) as idle:
                while self.more and len(joined) < least:
                    joined += self._piece(await self._receive())
                    idle.reschedule(loop.time() + self._idle_timeout)
            return bytes(joined)
        except TimeoutError:
            raise errors.request_timeout(
                f"No byte of the request's body came for {self._idle_timeout:g} s; nothing was sent to Pixapi."
            ) from None

    def _piece(self, message: Message) -> bytes:
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        chunk: bytes = message.get("body", b"")
        self.more = message.get("more_body", False)
        self._size += len(chunk)
        if self.more and trickles(self._size, monotonic() - self._began):
            raise errors.request_timeout(
                f"The request's body came at less than {SLOWEST_RATE} bytes a second; nothing was sent to Pixapi."
            )
        return chunk


def _at_once(receive: Receive) -> Message | None:
    """What there is to receive now, as nearly always the whole body; None when it has to be waited for, anew. Only for
    a `receive` that forgets who has asked, as our server's does."""
    asked = receive().__await__()
    try:
        asked.send(None)
    except StopIteration as found:
        message: Message = found.value
        return message
    asked.close()
    return None


def trickles(size: int, seconds: float) -> bool:
    """Whether a body of which so much has come in so long comes too slowly to wait for."""
    return seconds >= SLOW_AFTER_SECONDS and size < SLOWEST_RATE * seconds


def _check_length(exchange: Exchange, limit: int, what: str) -> None:
    """Refuses by Content-Length, before the body."""
    length = exchange.header(b"content-length")
    if length is not None and int(length) > limit:
        raise errors.too_large(f"{what} may have {limit} bytes; this one has {int(length)}.")


def _check_charset(parameters: bytes) -> None:
    for parameter in parameters.lower().split(b";"):
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
