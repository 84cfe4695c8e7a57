"""The transport as httpx's own client uses it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.upstream.transport import SENT, Transport
from tests.fakes.scripted_server import Connection, answering, scripted


@pytest.fixture
async def context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def test_httpx_can_use_it(context: ssl.SSLContext) -> None:
    async def mirror(connection: Connection) -> None:
        while (request := await connection.request()) is not None:
            await connection.answer(200, request.body, ("x-odd", "\xe4"))

    async def pieces() -> AsyncIterator[bytes]:
        yield b"hello "
        yield b"world"

    async with scripted(mirror) as server:
        transport = Transport(httpx.URL(server.url), context)
        async with httpx.AsyncClient(transport=transport, base_url=server.url, trust_env=False) as client:
            reply = await client.post("/a?b=c", content=b"hello")
            assert (reply.status_code, reply.content, reply.headers["x-odd"]) == (200, b"hello", "ä")
            reply = await client.post("/a", content=pieces(), headers={"content-length": "11"})
            assert reply.content == b"hello world"
            async with client.stream("GET", "/") as opened:
                pass
            with pytest.raises(httpx.StreamClosed):
                await opened.aread()
        assert server.connections == 1
        assert [request.target for request in server.requests] == ["/a?b=c", "/a", "/"]


async def test_a_request_says_whether_it_was_sent(context: ssl.SSLContext) -> None:
    async with scripted(answering(200)) as server:
        transport = Transport(httpx.URL(server.url), context)
        request = httpx.Request("GET", server.url)
        response = await transport.handle_async_request(request)
        await response.aclose()
        assert SENT in request.extensions
        for character in (*range(9), *range(10, 32), 127):
            odd = httpx.Request("GET", server.url, headers=[(b"x", b"a%cb: c" % character)])
            with pytest.raises(httpx.LocalProtocolError):
                await transport.handle_async_request(odd)
            assert SENT not in odd.extensions
        plain = httpx.Request(
            "GET", server.url, headers=[(b"x", bytes([9, *range(32, 127), *range(128, 256)]))]
        )
        await (await transport.handle_async_request(plain)).aclose()
        await transport.aclose()
        with pytest.raises(httpx.ConnectError):
            await transport.handle_async_request(again := httpx.Request("GET", server.url))
        assert SENT not in again.extensions


async def test_only_what_is_heeded_of_a_reply_is_told(context: ssl.SSLContext) -> None:
    reply = answering(200, b"hello", ("X-Odd", "1"), ("Content-Type", "a/b"), ("X-Odd", "2"))
    async with scripted(reply) as server:
        transport = Transport(httpx.URL(server.url), context, heeded={b"x-odd"})
        response = await transport.handle_async_request(httpx.Request("GET", server.url))
        assert response.headers.raw == [(b"X-Odd", b"1"), (b"X-Odd", b"2")]
        assert await response.aread() == b"hello"
        await transport.aclose()
