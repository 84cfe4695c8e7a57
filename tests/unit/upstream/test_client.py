"""The upstream client over real sockets: what it puts on the wire, and what it makes of what comes back."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from gateway.spool import SpoolBudget, SpooledBody
from gateway.upstream.client import (
    LARGEST_ERROR_BODY,
    Call,
    NotSentError,
    Reply,
    SentUnknownError,
    UpstreamClient,
)
from gateway.upstream.headers import Header, toward_pixapi
from tests.fakes.scripted_server import Connection, answering, head, scripted, silent

MIB = 1024 * 1024
Open = Callable[..., Awaitable[UpstreamClient]]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def spool(tmp_path: Path) -> SpoolBudget:
    return SpoolBudget(64 * MIB, tmp_path)


@pytest.fixture
async def connect(spool: SpoolBudget) -> AsyncIterator[Open]:
    """Opens clients; afterwards nothing of theirs may be left in the spool."""
    async with AsyncExitStack() as stack:

        async def make(url: str, **options: object) -> UpstreamClient:
            client = UpstreamClient(url, spool, **options)  # type: ignore[arg-type]
            await client.open()
            stack.push_async_callback(client.close)
            return client

        yield make
    assert spool.used == 0


def get(timeout: float = 5.0) -> Call:
    return Call("GET", "/v1/models", toward_pixapi(secret="sk_1", request_id="req_1"), timeout)


async def post(spool: SpoolBudget, content: bytes = b"{}", timeout: float = 5.0) -> Call:
    body = spool.body()
    await body.write(content)
    headers: list[Header] = toward_pixapi(
        secret="sk_1", request_id="req_1", content_type=b"application/json", content_length=len(content)
    )
    return Call("POST", "/v1/images/generations", headers, timeout, body)


async def taken(reply: Reply) -> bytes:
    """The reply's body, which is closed."""
    found = b"".join([chunk async for chunk in reply.body.chunks()])
    reply.body.close()
    return found


async def unknown(client: UpstreamClient, call: Call) -> SentUnknownError:
    with pytest.raises(SentUnknownError) as caught:
        await client.send(call)
    return caught.value


async def never_sent(client: UpstreamClient, call: Call) -> str:
    with pytest.raises(NotSentError) as caught:
        await client.send(call)
    return str(caught.value)


# What goes out ---------------------------------------------------------------------------------------------


async def test_a_post_has_its_headers_and_its_exact_body_and_nothing_else(
    connect: Open, spool: SpoolBudget
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


async def test_a_get_has_no_body_and_no_header_of_its_own(connect: Open) -> None:
    async with scripted(answering(200, b"{}")) as server:
        client = await connect(server.url)
        await taken(await client.send(get()))
        (request,) = server.requests
    names = sorted(name.lower() for name, _ in request.headers)
    assert names == ["accept", "authorization", "host", "user-agent", "x-request-id"]


@pytest.mark.parametrize("size", [0, 1, 5 * MIB + 3])
async def test_bodies_of_any_size_pass_unchanged_both_ways(
    connect: Open, spool: SpoolBudget, size: int
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


async def test_connections_are_kept_and_cookies_are_not(connect: Open) -> None:
    async with scripted(answering(200, b"{}", ("set-cookie", "session=other-team; Path=/"))) as server:
        client = await connect(server.url)
        for _ in range(3):
            await taken(await client.send(get()))
        assert server.connections == 1
        assert [request.values("cookie") for request in server.requests] == [[], [], []]


async def test_a_redirect_is_not_followed(connect: Open) -> None:
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
        ("99999999999", 999999.0),
        ("1.5", None),
        ("-1", None),
        ("soon", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("", None),
    ],
)
async def test_retry_after_is_read(connect: Open, value: str, seconds: float | None) -> None:
    async with scripted(answering(429, b"{}", ("retry-after", value))) as server:
        client = await connect(server.url)
        reply = await client.send(get())
        reply.body.close()
        assert reply.retry_after == seconds


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
async def test_a_compressed_answer_arrives_plain(connect: Open, coding: str) -> None:
    plain = b'{"data":[]}' * 100_000
    async with scripted(answering(200, gzip.compress(plain), ("content-encoding", coding))) as server:
        client = await connect(server.url)
        assert await taken(await client.send(get())) == plain


async def test_an_answer_that_cannot_be_decoded_is_unknown(connect: Open) -> None:
    cut = gzip.compress(b"x" * 1000)[:-4]
    async with scripted(answering(200, cut, ("content-encoding", "gzip"))) as server:
        client = await connect(server.url)
        assert "decoded" in str(await unknown(client, get()))


@pytest.mark.parametrize("packed", [False, True])
async def test_of_an_error_only_the_beginning_is_read(connect: Open, packed: bool) -> None:
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


async def test_an_odd_content_type_is_no_failure(connect: Open) -> None:
    odd = ("content-type", "image/p\xefng; name=\xe2\x82\xac")
    async with scripted(answering(200, b"{}", odd)) as server:
        client = await connect(server.url)
        reply = await client.send(get())
        assert await taken(reply) == b"{}"
        assert reply.content_type is not None


# What fails ------------------------------------------------------------------------------------------------


async def test_a_refused_connection_was_never_sent(connect: Open) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        client = await connect(f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert await never_sent(client, get()) == "no connection"


async def test_a_connection_that_never_stands_was_never_sent(connect: Open) -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as full, AsyncExitStack() as stack:
        address = full.getsockname()
        for _ in range(4):  # nobody accepts, so further connections are not answered
            waiting = socket.socket()
            waiting.setblocking(False)
            stack.callback(waiting.close)
            waiting.connect_ex(address)
        client = await connect(f"http://127.0.0.1:{address[1]}", connect_timeout=0.1)
        assert await never_sent(client, get()) == "connecting took too long"


async def reset_at_once(connection: Connection) -> None:
    connection.reset()


async def reset_after_the_request(connection: Connection) -> None:
    await connection.request()
    connection.reset()


async def close_after_the_request(connection: Connection) -> None:
    await connection.request()


async def half_a_head(connection: Connection) -> None:
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-le")


async def half_a_body(connection: Connection) -> None:
    await connection.request()
    await connection.send(head(200, ("content-length", "1000")) + b"x" * 500)


async def half_the_chunks(connection: Connection) -> None:
    await connection.request()
    await connection.send(head(200, ("transfer-encoding", "chunked")) + b"5\r\nabcde\r\n")


async def reset_within_the_body(connection: Connection) -> None:
    await connection.request()
    await connection.send(head(200, ("content-length", "1000")) + b"x" * 500)
    await asyncio.sleep(0.02)  # the head arrives before the reset
    connection.reset()


async def not_http(connection: Connection) -> None:
    await connection.request()
    await connection.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


@pytest.mark.parametrize(
    "script",
    [
        reset_at_once,
        reset_after_the_request,
        close_after_the_request,
        half_a_head,
        half_a_body,
        half_the_chunks,
        reset_within_the_body,
        not_http,
    ],
)
async def test_whatever_breaks_after_connecting_is_unknown_and_not_repeated(
    connect: Open, spool: SpoolBudget, script: Callable[[Connection], Awaitable[None]]
) -> None:
    async with scripted(script) as server:
        client = await connect(server.url)
        assert not (await unknown(client, await post(spool))).timed_out
        assert server.connections == 1


async def half_then_silence(connection: Connection) -> None:
    await half_a_body(connection)
    await connection.gone()


@pytest.mark.parametrize("script", [silent, half_then_silence])
async def test_silence_is_unknown_when_the_time_is_up(
    connect: Open, spool: SpoolBudget, script: Callable[[Connection], Awaitable[None]]
) -> None:
    async with scripted(script) as server:
        client = await connect(server.url)
        error = await unknown(client, await post(spool, timeout=0.1))
        assert error.timed_out
        assert str(error) == "no answer within 0.1 s"


async def answer_once(connection: Connection) -> None:
    await connection.request()
    await connection.answer(200, b"{}")
    await connection.request()


async def test_a_post_that_meets_a_closing_connection_is_not_sent_twice(
    connect: Open, spool: SpoolBudget
) -> None:
    async with scripted(answer_once) as server:
        client = await connect(server.url)
        await taken(await client.send(await post(spool)))
        assert not (await unknown(client, await post(spool))).timed_out
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_get_that_meets_a_closing_connection_is_repeated_once(connect: Open) -> None:
    async with scripted(answer_once) as server:
        client = await connect(server.url)
        await taken(await client.send(get()))
        await taken(await client.send(get()))
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_connection_the_other_side_has_closed_is_not_used(connect: Open, spool: SpoolBudget) -> None:
    closed = asyncio.Event()

    async def answer_and_close(connection: Connection) -> None:
        await connection.request()
        await connection.answer(200, b"{}")
        closed.set()

    async with scripted(answer_and_close) as server:
        client = await connect(server.url)
        for number in (1, 2, 3):
            await taken(await client.send(await post(spool)))
            await closed.wait()
            closed.clear()
            await asyncio.sleep(0.01)  # the close is on its way
            assert server.connections == number


# How many at once ------------------------------------------------------------------------------------------


async def test_more_calls_than_connections_wait_and_then_were_never_sent(connect: Open) -> None:
    async with scripted(silent) as server:
        client = await connect(server.url, max_connections=2, pool_wait=0.05)
        busy = [asyncio.create_task(client.send(get(timeout=30))) for _ in range(2)]
        assert await never_sent(client, get()) == "every upstream connection is in use"
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        assert (await unknown(client, get(timeout=0.05))).timed_out


async def test_a_storm_of_cancelled_calls_loses_no_slot(connect: Open) -> None:
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


def test_bodies_are_the_spool_s_own(spool: SpoolBudget) -> None:
    assert isinstance(spool.body(), SpooledBody)
