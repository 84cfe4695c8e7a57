"""How a body is read: in whatever pieces it comes, how slowly it may come, and what it is known by."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.limits.limits import Lane, Limits
from gateway.middleware.rate_limits import RateLimitsMiddleware
from gateway.middleware.request_body import RequestBodyMiddleware, trickles
from gateway.proxy.exchange import exchange_of
from gateway.proxy.generation import Operation
from gateway.proxy.multipart import FormLimits
from gateway.proxy.paid_calls import PaidCalls
from gateway.spool import SpoolBudget
from gateway.telemetry import Metrics
from tests.fakes.asgi import http, with_exchange
from tests.fakes.cache import GoneCache
from tests.fakes.clock import FakeClock
from tests.fakes.principals import principal


@pytest.mark.parametrize(
    ("size", "seconds", "too_slow"),
    [
        (0, 29.9, False),  # the idle time-out is for these
        (1, 29.9, False),
        (30 * 1024 - 1, 30, True),
        (30 * 1024, 30, False),
        (1024 * 1024, 1024, False),
        (1024 * 1024, 1025, True),
        (60, 60, True),
    ],
)
def test_after_half_a_minute_a_body_keeps_a_rate(size: int, seconds: float, too_slow: bool) -> None:
    assert trickles(size, seconds) is too_slow


class Reading:
    """A paid route that keeps what it learns of the body, behind a client that sends these pieces."""

    def __init__(self, folder: Path, pieces: Sequence[bytes], *, pause: float = 0.0) -> None:
        self.spool = SpoolBudget(64 * 1024 * 1024, folder)
        self.raw = b""
        self.fingerprint = b""
        self.left = list(pieces)
        self.paid_calls = PaidCalls(1)
        self.seats: list[
            int
        ] = []  # how many were taken whenever more of the body was asked for, and further in
        self._pause = pause

    async def ask(
        self,
        content_type: bytes,
        *,
        idle_timeout: float = 5.0,
        max_json_bytes: int = 1000,
        team: int = 1,
        app: ASGIApp | None = None,
    ) -> None:
        middleware = RequestBodyMiddleware(
            app or self,
            operation=Operation.IMAGES_EDITS,
            spool=self.spool,
            paid_calls=self.paid_calls,
            max_json_bytes=max_json_bytes,
            form_limits=FormLimits(),
            idle_timeout=idle_timeout,
        )
        scope = http("POST", "/v1/images/edits", [(b"content-type", content_type)])
        with_exchange(scope, principal=replace(principal(), team_id=UUID(int=team)))
        await middleware(scope, self.receive, cast("Send", None))
        assert self.spool.used == 0

    async def receive(self) -> Message:
        self.seats.append(self.paid_calls.under_way)
        await asyncio.sleep(self._pause)
        if not self.left:
            return {"type": "http.disconnect"}
        piece = self.left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self.left)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = exchange_of(scope).body
        assert body is not None
        self.seats.append(self.paid_calls.under_way)
        self.raw, self.fingerprint = b"".join([part async for part in body.raw.chunks()]), body.fingerprint


JSON = b"application/json"
DOCUMENT = b'{"model": "m", "prompt": "p"}'


def form(boundary: str, image: bytes) -> tuple[bytes, bytes]:
    """Its content type, and the form."""
    parts = [
        b'name="model"\r\n\r\nm',
        b'name="prompt"\r\n\r\np',
        b'name="image"; filename="a.png"\r\n\r\n' + image,
    ]
    mark = b"--" + boundary.encode()
    body = b"".join(mark + b"\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
    return f"multipart/form-data; boundary={boundary}".encode(), body + mark + b"--\r\n"


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


@pytest.mark.parametrize(
    "pieces", [[DOCUMENT], cut(DOCUMENT, 1), [b"", DOCUMENT[:9], b"", DOCUMENT[9:], b""]]
)
async def test_a_json_body_is_read_however_it_is_cut(tmp_path: Path, pieces: list[bytes]) -> None:
    route = Reading(tmp_path, pieces)
    await route.ask(JSON)
    assert (route.raw, route.left) == (DOCUMENT, [])


async def test_a_json_body_is_not_read_far_beyond_its_limit(tmp_path: Path) -> None:
    route = Reading(tmp_path, [b" " * 100] * 50)
    with pytest.raises(GatewayError) as caught:
        await route.ask(JSON, max_json_bytes=1000)
    assert (caught.value.status, len(route.left)) == (413, 39)


@pytest.mark.parametrize("content_type", [JSON, form("b", b"")[0]])
async def test_each_piece_has_the_idle_time_anew(tmp_path: Path, content_type: bytes) -> None:
    body = DOCUMENT if content_type is JSON else form("b", b"")[1]
    route = Reading(tmp_path, cut(body, len(body) // 7), pause=0.1)
    await route.ask(content_type, idle_timeout=0.5)
    assert route.raw == body
    late = Reading(tmp_path, cut(body, len(body) // 2), pause=0.3)
    with pytest.raises(GatewayError, match=r"No byte of the request's body came for 0\.1 s") as caught:
        await late.ask(content_type, idle_timeout=0.1)
    assert caught.value.status == 408


@pytest.mark.parametrize("content_type", [JSON, form("b", b"")[0]])
async def test_who_leaves_midway_has_no_call(tmp_path: Path, content_type: bytes) -> None:
    route = Reading(tmp_path, [])
    await route.ask(content_type)
    assert route.fingerprint == b""


async def test_a_large_form_is_spooled_as_it_came_and_known_by_its_parts_and_team(tmp_path: Path) -> None:
    image = os.urandom(3_000_000)

    async def fingerprint(boundary: str, image: bytes, size: int, team: int = 1) -> bytes:
        content_type, body = form(boundary, image)
        route = Reading(tmp_path, cut(body, size))
        await route.ask(content_type, team=team)
        assert route.raw == body
        return route.fingerprint

    first = await fingerprint("one", image, 65_536)
    assert first == await fingerprint("two", image, 262_144)
    others = {await fingerprint("one", image[:-1] + bytes([image[-1] ^ 1]), 65_536)}
    others |= {await fingerprint("one", image[1:], 65_536), await fingerprint("one", image, 65_536, team=2)}
    assert len(others | {first}) == 4


async def test_whoever_cannot_be_asked_twice_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a client in process that sends what a generator makes: it is at work while it is waited for."""

    async def messages() -> AsyncIterator[Message]:
        for piece in cut(DOCUMENT, 10):
            await asyncio.sleep(0)
            yield {"type": "http.request", "body": piece, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    route = Reading(tmp_path, [])
    monkeypatch.setattr(route, "receive", messages().__anext__)
    await route.ask(JSON)
    assert route.raw == DOCUMENT


async def test_nobody_holds_a_seat_by_sending_slowly(tmp_path: Path) -> None:
    route = Reading(tmp_path, cut(DOCUMENT, 10), pause=0.01)
    await route.ask(JSON)
    assert route.seats == [0] * (len(route.seats) - 1) + [1]
    assert route.paid_calls.under_way == 0


async def test_who_finds_every_seat_taken_has_asked_and_counted_nothing(tmp_path: Path) -> None:
    route, cache = Reading(tmp_path, cut(DOCUMENT, 10), pause=0.01), GoneCache()
    limited = RateLimitsMiddleware(route, limits=Limits(cache, FakeClock(), Metrics()), lane=Lane.PAID)
    asking = asyncio.create_task(route.ask(JSON, app=limited))
    await asyncio.sleep(0)
    seat = route.paid_calls.take_seat()  # while its body was on the way
    with pytest.raises(GatewayError) as caught:
        await asking
    assert (caught.value.reason, cache.asked, route.raw) == ("overloaded", 0, b"")
    with pytest.raises(GatewayError, match="under way"):
        await route.ask(JSON)
    assert len(route.left) == 0  # of a body that comes now nothing is read
    seat.close()


@pytest.mark.parametrize("started", [False, True])
async def test_a_seat_is_given_back_by_its_request_unless_a_call_was_started_in_it(
    tmp_path: Path, started: bool
) -> None:
    route, ends = Reading(tmp_path, [DOCUMENT]), asyncio.Event()

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seat = exchange_of(scope).seat
        assert seat is not None
        if started:
            seat.start(ends.wait())
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError):
        await route.ask(JSON, app=app)
    assert route.paid_calls.under_way == started
    ends.set()
    await route.paid_calls.ended()
