"""Who begins a body that nobody pays for, and does not go on, is told so in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from gateway.errors import GatewayError
from gateway.pages import forms
from gateway.proxy import small_body

HEADERS = [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"7")]


@pytest.mark.parametrize(
    "read",
    [
        lambda request: forms._pairs(request, 100, 10),
        lambda request: small_body.read(request, 100, "The body"),
    ],
    ids=["a form", "any other"],
)
async def test_a_body_that_stops_is_refused(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_body, "SECONDS", 0.05)
    pieces = [b"a="]

    async def receive() -> Message:
        if not pieces:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    with pytest.raises(GatewayError) as raised:
        await read(Request({"type": "http", "method": "POST", "headers": HEADERS}, receive))
    assert raised.value.status == 408
