"""Sends a spooled body to the client, byte for byte."""

from __future__ import annotations

from starlette.types import Send

from gateway.spool import SpooledBody
from gateway.upstream.headers import Header


async def relay(send: Send, status: int, headers: list[Header], body: SpooledBody) -> None:
    """Answers with `body`; its length is in `headers`. A client that leaves midway ends nothing but its own answer."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if body.in_memory:
        await send({"type": "http.response.body", "body": body.read_small()})
        return
    async for chunk in body.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def reply(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    """Answers with a body that is in memory; the content length is added."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
