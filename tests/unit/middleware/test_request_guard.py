"""Request heads that two readers could read differently are refused before the body."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.middleware.request_guard import (
    EXTENSION,
    MAX_HEADER_BYTES,
    MAX_HEADER_COUNT,
    MAX_TARGET,
    RequestGuardMiddleware,
    check_framing,
    check_path,
    check_size,
)
from gateway.proxy.exchange import Exchange
from gateway.server.head import read_head
from gateway.server.protocol import CHECKED
from tests.fakes.asgi import HOST, Header, call, http, ok, with_exchange


async def guarded(
    headers: list[Header], *, allowed: tuple[str, ...] = (), extensions: Any = (), **request: Any
) -> int | str:
    """200 when the request passes, else the reason it is refused for."""
    scope = {**http(headers=headers, **request), "extensions": extensions}
    with_exchange(scope)
    try:
        return (await call(RequestGuardMiddleware(ok, allowed), scope)).status
    except GatewayError as error:
        closes = error.headers.get("connection") == "close"
        return f"{error.status} {error.reason}{' close' if closes else ''}"


@pytest.mark.parametrize(
    "host",
    [
        b"gateway.test", b"GATEWAY.test:8080", b"localhost", b"127.0.0.1:1", b"[::1]", b"[2001:db8::1]:8080",
        b"a_b-c.example", b"gateway.test.", b"x" * 254,
    ],
)  # fmt: skip
async def test_well_formed_hosts_pass(host: bytes) -> None:
    assert await guarded([(b"host", host)]) == 200


@pytest.mark.parametrize(
    "hosts",
    [
        [], [b""], [b"a", b"a"], [b"a b"], [b"a/b"], [b"user@a"], [b"a:"], [b"a:123456"], [b"a:b"], [b"::1"],
        [b"[::1"], [b"-a"], [b"a\xff"], [b"a,b"], [b" a"], [b"x" * 255],
    ],
)  # fmt: skip
async def test_any_other_host_is_refused(hosts: list[bytes]) -> None:
    assert await guarded([(b"host", host) for host in hosts]) == "400 invalid_framing close"


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        (b"gateway.example.com", True),
        (b"Gateway.Example.com:443", True),
        (b"gateway.example.com.", True),
        (b"[::1]:8080", True),
        (b"evil.example.com", False),
        (b"gateway.example.com.evil.test", False),
        (b"[::2]", False),
    ],
)
async def test_only_allowed_hosts_are_answered(host: bytes, passes: bool) -> None:
    allowed = ("gateway.example.com", "::1")
    assert await guarded([(b"host", host)], allowed=allowed) == (200 if passes else "400 unknown_host")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_come_under_any_well_formed_host(path: str) -> None:
    assert await guarded([(b"host", b"10.1.2.3:8080")], allowed=("gateway.test",), path=path) == 200
    assert await guarded([], allowed=("gateway.test",), path=path) == "400 invalid_framing close"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"content-length", b"0")], 200),
        ([(b"content-length", b"123456789012")], 200),
        ([(b"transfer-encoding", b"chunked")], 200),
        ([(b"transfer-encoding", b" Chunked ")], 200),
        ([(b"content-length", b"1"), (b"content-length", b"1")], "400 invalid_framing close"),
        ([(b"content-length", b"1"), (b"transfer-encoding", b"chunked")], "400 invalid_framing close"),
        ([(b"transfer-encoding", b"chunked")] * 2, "400 invalid_framing close"),
        ([(b"transfer-encoding", b"gzip, chunked")], "400 invalid_framing close"),
        ([(b"transfer-encoding", b"identity")], "400 invalid_framing close"),
        ([(b"content-length", b"")], "400 invalid_framing close"),
        ([(b"content-length", b"-1")], "400 invalid_framing close"),
        ([(b"content-length", b"+1")], "400 invalid_framing close"),
        ([(b"content-length", b"1, 1")], "400 invalid_framing close"),
        ([(b"content-length", b"0x1")], "400 invalid_framing close"),
        ([(b"content-length", b"1_0")], "400 invalid_framing close"),
        ([(b"content-length", "١".encode())], "400 invalid_framing close"),
        ([(b"content-length", b"9" * 19)], "400 invalid_framing close"),
        ([(b"expect", b"100-Continue")], 200),
        ([(b"expect", b"200-ok")], "417 expectation_failed close"),
        ([(b"content-encoding", b"identity")], 200),
        ([(b"content-encoding", b"")], 200),
        ([(b"content-encoding", b"gzip")], "415 unsupported_media_type"),
    ],
)
async def test_a_body_s_end_is_told_in_one_way(headers: list[Header], expected: int | str) -> None:
    assert await guarded([HOST, *headers], method="POST") == expected


async def test_the_limits_of_a_head_are_exact() -> None:
    longest = b"/" + b"a" * (MAX_TARGET - 5)
    assert await guarded([HOST], path=longest.decode(), query=b"abc") == 200
    assert await guarded([HOST], path=longest.decode(), query=b"abcd") == "414 uri_too_long close"
    many = [HOST] + [(b"x", b"")] * (MAX_HEADER_COUNT - 1)
    assert await guarded(many) == 200
    assert await guarded([*many, (b"x", b"")]) == "431 headers_too_large close"
    room = MAX_HEADER_BYTES - len(HOST[0] + HOST[1]) - 4 - 1 - 4
    assert await guarded([HOST, (b"x", b"y" * room)]) == 200
    assert await guarded([HOST, (b"x", b"y" * (room + 1))]) == "431 headers_too_large close"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/models",
        "/v1/models/gemini-2.5-flash_image~1",
        "/admin/",
        "/a/.well-known/b",
        "/...",
        "/a/b:c",
    ],
)
def test_plain_paths_pass(path: str) -> None:
    check_path(path.encode())


@pytest.mark.parametrize(
    "path",
    [
        "", "*", "v1/models", "//", "/v1//models", "/v1/./models", "/v1/../admin", "/..", "/v1/models/..",
        "/v1/%6dodels", "/v1/models%2f", "/v1/models;x", "/v1/a b", "/v1/ä", "/v1/models\0", "/v1/models\n",
        "/v1\\models",
        "/v1/a+b",
    ],
)  # fmt: skip
def test_paths_spelt_otherwise_are_not_found(path: str) -> None:
    with pytest.raises(GatewayError) as caught:
        check_path(path.encode())
    assert caught.value.status == 404


@given(st.text(alphabet="/.a%", max_size=20))
def test_no_path_that_passes_can_climb(path: str) -> None:
    try:
        check_path(path.encode())
    except GatewayError:
        return
    assert path.startswith("/")
    assert not {".", ".."} & set(path.split("/"))
    assert "%" not in path
    assert "//" not in path


MALFORMED = [
    [(b"content-length", b"1"), (b"content-length", b"1")],
    [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
    [(b"x", b"")] * MAX_HEADER_COUNT,
]


@pytest.mark.parametrize("headers", MALFORMED)
async def test_what_our_server_has_checked_is_not_checked_again(headers: list[Header]) -> None:
    assert await guarded([HOST, *headers]) in ("400 invalid_framing close", "431 headers_too_large close")
    assert await guarded([HOST, *headers], extensions={EXTENSION: True}) == 200
    assert await guarded([HOST, *headers], extensions=None) != 200


async def test_the_rest_is_checked_under_any_server() -> None:
    ours: dict[str, Any] = {"extensions": {EXTENSION: True}}
    assert await guarded([], **ours) == "400 invalid_framing close"
    assert await guarded([HOST], path="//", **ours) == "404 not_found"
    assert await guarded([HOST, (b"expect", b"200-ok")], **ours) == "417 expectation_failed close"
    assert await guarded([HOST, (b"content-encoding", b"gzip")], **ours) == "415 unsupported_media_type"


def test_server_and_guard_mean_the_same_extension() -> None:
    assert EXTENSION == CHECKED


_NAMES = st.sampled_from(
    (b"Content-Length", b"content-length", b"Transfer-Encoding", b"Expect", b"Connection", b"Upgrade", b"x")
)
_VALUES = st.sampled_from(
    (
        b"0",
        b"12",
        b"-1",
        b"1, 1",
        b"9" * 18,
        b"9" * 19,
        b"chunked",
        b" Chunked\t",
        b"gzip, chunked",
        b"",
        b"h2c",
    )
)


@given(
    st.lists(st.tuples(_NAMES, _VALUES), max_size=4), st.integers(0, 110), st.integers(0, MAX_HEADER_BYTES)
)
def test_our_server_checks_what_the_guard_would(fields: list[Header], more: int, long: int) -> None:
    lines = [b"%b: %b" % field for field in [*fields, *[(b"y", b"")] * more, (b"z", b"z" * long)]]
    try:
        head = read_head(b"\r\n".join([b"GET /?a HTTP/1.1", HOST[0] + b":" + HOST[1], *lines, b"", b""]))
    except GatewayError:
        return
    check_size(tuple(head.fields), head.path, head.query)
    check_framing(Exchange("req_1", 0.0, None, tuple(head.fields)).named)


async def test_trailers_never_reach_the_headers_below() -> None:
    seen: list[Header] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        parsers_list.append((b"authorization", b"Bearer from-a-trailer"))
        seen.extend(scope["headers"])
        await ok(scope, receive, send)

    scope = http()
    parsers_list = scope["headers"]
    with_exchange(scope)
    await call(RequestGuardMiddleware(app), scope)
    assert seen == [HOST]


async def test_a_lifespan_passes() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await call(RequestGuardMiddleware(app), {"type": "lifespan"})
    assert seen == ["lifespan"]
