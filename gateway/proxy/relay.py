"""Sends a spooled body to the client, byte for byte."""

from __future__ import annotations

import asyncio

from starlette.types import Send

from gateway.spool import SpooledBody
from gateway.upstream.headers import Header


async def relay(
    send: Send, status: int, headers: list[Header], body: SpooledBody, leaving: asyncio.Task[None]
) -> bool:
    """Answers with `body`; its length is in `headers`. A client that leaves midway ends nothing but its own answer.

    `leaving` is done when the client has gone; answers whether it was there to the last byte.
    """
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if body.in_memory:
        last = body.read_small()
    else:
        last = b""
        async for chunk in body.chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    there = not leaving.done()  # with the last byte the exchange is over, which looks like leaving
    await send({"type": "http.response.body", "body": last})
    return there


async def reply(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    """Answers with a body that is in memory; the content length is added."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
