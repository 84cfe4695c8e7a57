"""Sends a spooled body to the client, byte for byte."""

from __future__ import annotations

from starlette.types import Receive, Send

from gateway.proxy.leaving import has_left
from gateway.spool import SpooledBody
from gateway.upstream.headers import Header


async def relay(receive: Receive, send: Send, status: int, headers: list[Header], body: SpooledBody) -> bool:
    """Answers with `body`; its length is in `headers`. A client that leaves midway ends nothing but its own answer.

    Whether the client was there to the last byte.
    """
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if body.in_memory:
        last = body.read_small()
    else:
        last = b""
        async for chunk in body.chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    there = not has_left(receive)  # with the last byte the exchange is over, which looks like leaving
    await send({"type": "http.response.body", "body": last})
    return there


async def reply(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    """Answers with a body that is in memory; the content length is added."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
