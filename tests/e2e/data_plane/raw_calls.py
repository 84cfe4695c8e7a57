"""A paid call as bytes, and what must come of bytes that are refused."""

from __future__ import annotations

import httpx

from tests.e2e.data_plane.rig import SYNC, Rig, error_of
from tests.e2e.data_plane.wire import Wire, head

BODY = b'{"model":"nano-banana","prompt":"A cup"}'
LENGTH = f"Content-Length: {len(BODY)}"
JSON = "Content-Type: application/json"


def post(rig: Rig, *fields: str, path: str = SYNC, host: str = "Host: gateway") -> bytes:
    """The head of a paid call that would work with the right framing."""
    return head(f"POST {path} HTTP/1.1", host, f"Authorization: Bearer {rig.key}", JSON, *fields)


def exchange(rig: Rig, data: bytes) -> tuple[httpx.Response, bytes]:
    """The first answer to these bytes, and what comes after it until the server ends the connection."""
    with Wire(rig.gateway.process.port) as wire:
        wire.send(data)
        answer = wire.answer()
        return answer, wire.rest()


def refused(rig: Rig, data: bytes, status: int = 400, kind: str = "invalid_request_error") -> None:
    """These bytes get this error, once, and the connection ends; nothing is sent or held."""
    before = rig.rows("SELECT count(*) AS count FROM holds")
    answer, rest = exchange(rig, data)
    error_of(answer, status, kind)
    assert answer.headers["connection"] == "close"
    assert rest == b""
    assert rig.untouched(answer)
    assert rig.rows("SELECT count(*) AS count FROM holds") == before
