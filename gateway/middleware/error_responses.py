"""The only renderer of failures: a GatewayError becomes its answer, anything else a 500 that says nothing."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import errors
from gateway.errors import GatewayError
from gateway.proxy.exchange import Exchange, exchange_of

log = logging.getLogger("gateway.errors")
# A request body shorter than this is taken in although nobody reads it, so that the connection can be kept.
SHORT_BODY = 64 * 1024


class ErrorResponsesMiddleware:
    """Catches what everything below raises, as long as no answer has begun: `request_context` above it says so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        try:
            await self._app(scope, receive, send)
        except GatewayError as error:
            exchange.failure = error.reason
            if exchange.status:
                raise
            exchange.refused = error
            await _answer(error, exchange, send)
            if exchange.when_failure_sent is not None:
                exchange.when_failure_sent()
        except Exception:
            exchange.failure = "internal_error"
            log.exception("request failed", extra={"request_id": exchange.request_id})
            if exchange.status:
                raise
            exchange.refused = errors.internal_error()
            await _answer(exchange.refused, exchange, send)


async def _answer(error: GatewayError, exchange: Exchange, send: Send) -> None:
    headers, body = errors.render(error, exchange.request_id)
    if _unread_body(exchange) and "connection" not in error.headers:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _unread_body(exchange: Exchange) -> bool:
    """Whether more of a body may come than is worth taking in for nothing."""
    if exchange.body_complete:
        return False
    if exchange.header(b"transfer-encoding") is not None or exchange.header(b"expect") is not None:
        return True
    length = exchange.header(b"content-length") or b"0"
    return not length.isdigit() or int(length) > SHORT_BODY
