"""One HTTP request to an ASGI app, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.proxy.exchange import Exchange, begin

Header = tuple[bytes, bytes]
HOST: Header = (b"host", b"gateway.test")


@dataclass
class Sent:
    """What an app sent."""

    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> list[Header]:
        return list(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.body)["error"]
        return found

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


def http(
    method: str = "GET",
    path: str = "/v1/models",
    headers: Iterable[Header] = (HOST,),
    query: bytes = b"",
    client: tuple[str, int] | None = ("192.0.2.1", 5000),
) -> Scope:
    """An HTTP scope as the server makes it."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": list(headers),
        "client": client,
    }


def with_exchange(scope: Scope, **fields: Any) -> Exchange:
    """Gives the scope an exchange, for a middleware tested without `request_context` above it."""
    plain: dict[str, Any] = {"request_id": "req_test", "started": 0.0, "client": None}
    exchange = Exchange(headers=tuple(scope["headers"]), **(plain | fields))
    begin(scope, exchange)
    return exchange


async def call(app: ASGIApp, scope: Scope, received: Sequence[Message] = ()) -> Sent:
    """What `app` sends; it receives these messages, by default an empty body, then waits."""
    sent = Sent()
    left = list(received) or [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        return left.pop(0) if left else await asyncio.Future()

    async def send(message: Message) -> None:
        sent.messages.append(message)

    await app(scope, receive, send)
    return sent


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers 200 without reading."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"ok"})
