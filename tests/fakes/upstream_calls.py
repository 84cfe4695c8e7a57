"""Calls for the upstream client, and what becomes of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from gateway.spool import SpoolBudget
from gateway.upstream.client import Call, NotSentError, Reply, SentUnknownError, UpstreamClient
from gateway.upstream.headers import toward_pixapi

Connect = Callable[..., Awaitable[UpstreamClient]]


def get(timeout: float = 5.0) -> Call:
    return Call("GET", "/v1/models", toward_pixapi(secret="sk_1", request_id="req_1"), timeout)


async def post(spool: SpoolBudget, content: bytes = b"{}", timeout: float = 5.0) -> Call:
    """A paid call; its body is the caller's to close."""
    body = spool.body()
    await body.write(content)
    headers = toward_pixapi(
        secret="sk_1", request_id="req_1", content_type=b"application/json", content_length=len(content)
    )
    return Call("POST", "/v1/images/generations", headers, timeout, body)


async def taken(reply: Reply) -> bytes:
    """The reply's body, which is closed."""
    found = b"".join([chunk async for chunk in reply.body.chunks()])
    reply.body.close()
    return found


async def unknown(client: UpstreamClient, call: Call) -> SentUnknownError:
    """The error of a call that must end as sent with an unknown outcome."""
    with pytest.raises(SentUnknownError) as caught:
        await client.send(call)
    return caught.value


async def never_sent(client: UpstreamClient, call: Call) -> str:
    """The reason why a call was certainly not sent."""
    with pytest.raises(NotSentError) as caught:
        await client.send(call)
    return str(caught.value)
