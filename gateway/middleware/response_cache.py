"""Answers GETs that a fresh entry can answer, and gives every 200 an `etag`: a client that has it already gets 304.

What is fresh is known to the rooms that own the entries; a route's rule, handed in by `app.py`, asks them. A rule knows
the caller's team, so no answer can be another team's. `cache-control: no-cache` goes past the rule.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.proxy.caching import Header, Rule, asks_anew, etag_of, matches
from gateway.proxy.exchange import Exchange, exchange_of

OF_THE_BODY = frozenset({b"content-length", b"content-type"})


class ResponseCacheMiddleware:
    """`rule` answers what is fresh for a request, or None to pass it on."""

    def __init__(self, app: ASGIApp, *, rule: Rule) -> None:
        self._app = app
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        found = None if asks_anew(exchange) else await self._rule(scope)
        if found is None:
            await self._app(scope, receive, _Tagging(exchange, send))
        else:
            length = (b"content-length", b"%d" % len(found.body))
            await _answer(exchange, send, [*found.headers, length], found.body)


class _Tagging:
    """Holds the head of a 200 back until its body is known, if that comes in one piece."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self._head: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            self._head = message
            return
        head, self._head = self._head, None
        if head is None:
            await self._send(message)
        elif message.get("more_body", False):
            await self._send(head)
            await self._send(message)
        else:
            await _answer(self._exchange, self._send, head["headers"], message.get("body", b""))


async def _answer(exchange: Exchange, send: Send, headers: list[Header], body: bytes) -> None:
    etag = etag_of(body)
    headers = [*headers, (b"etag", etag)]
    if matches(exchange, etag):
        kept = [header for header in headers if header[0] not in OF_THE_BODY]
        await send({"type": "http.response.start", "status": 304, "headers": kept})
        await send({"type": "http.response.body", "body": b""})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
