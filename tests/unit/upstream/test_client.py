"""The upstream client over real sockets: what it puts on the wire, and what it reads from it."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from gateway.spool import SpoolBudget
from gateway.upstream.client import LARGEST_ERROR_BODY
from tests.fakes.scripted_server import Connection, answering, scripted, silent
from tests.fakes.upstream_calls import Connect, get, never_sent, post, taken, unknown

MIB = 1024 * 1024

# What goes out ---------------------------------------------------------------------------------------------


async def test_a_post_has_its_headers_and_its_exact_body_and_nothing_else(
    connect: Connect, spool: SpoolBudget
) -> None:
    async with scripted(answering(200, b'{"ok":1}', ("content-type", "application/json"))) as server:
        client = await connect(server.url)
        call = await post(spool, b'{"prompt":"\xc3\xa4"}')
        reply = await client.send(call)
        assert (reply.status, reply.content_type, reply.retry_after) == (200, b"application/json", None)
        assert await taken(reply) == b'{"ok":1}'
        (request,) = server.requests
    assert (request.method, request.target, request.body) == (
        "POST",
        "/v1/images/generations",
        b'{"prompt":"\xc3\xa4"}',
    )
    expected = [("host", f"127.0.0.1:{server.port}")]
    expected += [(name.decode(), value.decode()) for name, value in call.headers]
    assert sorted((name.lower(), value) for name, value in request.headers) == sorted(expected)


async def test_a_get_has_no_body_and_no_header_of_its_own(connect: Connect) -> None:
    async with scripted(answering(200, b"{}")) as server:
        client = await connect(server.url)
        await taken(await client.send(get()))
        (request,) = server.requests
    names = sorted(name.lower() for name, _ in request.headers)
    assert names == ["accept", "authorization", "host", "user-agent", "x-request-id"]


@pytest.mark.parametrize("size", [0, 1, 5 * MIB + 3])
async def test_bodies_of_any_size_pass_unchanged_both_ways(
    connect: Connect, spool: SpoolBudget, size: int
) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    async def mirror(connection: Connection) -> None:
        while (request := await connection.request()) is not None:
            await connection.answer(200, request.body)

    async with scripted(mirror) as server:
        client = await connect(server.url)
        call = await post(spool, content)
        assert await taken(await client.send(call)) == content
        assert server.requests[0].values("content-length") == [str(size)]
        assert server.requests[0].values("transfer-encoding") == []
        assert call.body is not None
        call.body.close()


async def test_connections_are_kept_and_cookies_are_not(connect: Connect) -> None:
    async with scripted(answering(200, b"{}", ("set-cookie", "session=other-team; Path=/"))) as server:
        client = await connect(server.url)
        for _ in range(3):
            await taken(await client.send(get()))
        assert server.connections == 1
        assert [request.values("cookie") for request in server.requests] == [[], [], []]


async def test_a_redirect_is_not_followed(connect: Connect) -> None:
    async with scripted(answering(307, b"", ("location", "/elsewhere"))) as server:
        client = await connect(server.url)
        reply = await client.send(get())
        reply.body.close()
        assert (reply.status, len(server.requests)) == (307, 1)


# What comes back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1", 1.0),
        (" 30 ", 30.0),
        ("0", 0.0),
        ("99999999999", None),
        ("1.5", 1.5),
        ("-1", None),
        ("soon", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("", None),
    ],
)
async def test_retry_after_is_read(connect: Connect, value: str, seconds: float | None) -> None:
    async with scripted(answering(429, b"{}", ("retry-after", value))) as server:
        client = await connect(server.url)
        reply = await client.send(get())
        reply.body.close()
        assert reply.retry_after == seconds


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
async def test_a_compressed_answer_arrives_plain(connect: Connect, coding: str) -> None:
    plain = b'{"data":[]}' * 100_000
    async with scripted(answering(200, gzip.compress(plain), ("content-encoding", coding))) as server:
        client = await connect(server.url)
        assert await taken(await client.send(get())) == plain


async def test_an_answer_that_cannot_be_decoded_is_unknown(connect: Connect) -> None:
    cut = gzip.compress(b"x" * 1000)[:-4]
    async with scripted(answering(200, cut, ("content-encoding", "gzip"))) as server:
        client = await connect(server.url)
        assert "decoded" in str(await unknown(client, get()))


@pytest.mark.parametrize("packed", [False, True])
async def test_of_an_error_only_the_beginning_is_read(connect: Connect, packed: bool) -> None:
    content = b"x" * (20 * MIB)
    body, headers = content, []
    if packed:
        body, headers = gzip.compress(content), [("content-encoding", "gzip")]
    async with scripted(answering(500, body, *headers)) as server:
        client = await connect(server.url)
        reply = await client.send(get())
        assert reply.body.in_memory
        assert LARGEST_ERROR_BODY <= reply.body.size <= 3 * LARGEST_ERROR_BODY
        reply.body.close()


@pytest.mark.parametrize("odd", [b"image/p\xefng", b"image/\xe2\x82\xac", b"x" * 5000])
async def test_an_odd_content_type_is_no_failure(connect: Connect, odd: bytes) -> None:
    async with scripted(answering(200, b"{}", ("content-type", odd.decode("latin-1")))) as server:
        client = await connect(server.url)
        reply = await client.send(get())
        assert await taken(reply) == b"{}"
        assert reply.content_type == odd


async def test_without_a_content_type_there_is_none(connect: Connect) -> None:
    async with scripted(answering(200, b"{}")) as server:
        client = await connect(server.url)
        reply = await client.send(get())
        reply.body.close()
        assert reply.content_type is None


# How many at once ------------------------------------------------------------------------------------------


async def test_more_calls_than_connections_wait_and_then_were_never_sent(connect: Connect) -> None:
    async with scripted(silent) as server:
        client = await connect(server.url, max_connections=2, pool_wait=0.05)
        busy = [asyncio.create_task(client.send(get(timeout=30))) for _ in range(2)]
        async with asyncio.timeout(5):
            while len(server.requests) < 2:
                await asyncio.sleep(0.001)
        assert await never_sent(client, get()) == "every upstream connection is in use"
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        assert (await unknown(client, get(timeout=0.05))).timed_out


async def test_a_storm_of_cancelled_calls_loses_no_slot(connect: Connect) -> None:
    stalling = True

    async def script(connection: Connection) -> None:
        while await connection.request() is not None:
            if stalling:
                await connection.gone()
                return
            await connection.answer(200, b"{}")

    async with scripted(script) as server:
        client = await connect(server.url, max_connections=20, pool_wait=5.0)
        storm = [asyncio.create_task(client.send(get(timeout=30))) for _ in range(500)]
        for number, task in enumerate(storm):
            if number % 50 == 0:
                await asyncio.sleep(0.005)  # some are connecting, some sent, some waiting for a slot
            task.cancel()
        ended = await asyncio.gather(*storm, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        stalling = False
        barrier = asyncio.Barrier(20)

        async def call() -> bytes:
            await barrier.wait()
            return await taken(await client.send(get()))

        assert await asyncio.gather(*(call() for _ in range(20))) == [b"{}"] * 20
