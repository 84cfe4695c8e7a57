"""Replies as they come over the wire: how they are framed, cut anywhere, and broken."""

from __future__ import annotations

import asyncio

import pytest

from gateway.spool import PIECE, SpoolBudget
from gateway.upstream.connection import HIGH_WATER, LARGEST_HEAD
from tests.fakes.scripted_server import Connection, Script, head, scripted
from tests.fakes.upstream_calls import Connect, get, post, taken, unknown

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nContent-Type: text/plain\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;odd=yes\r\n world\r\n0\r\nX-Sum: 1\r\nContent-Type: forged\r\n\r\n"
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 3\r\n\r\n"


def saying(*pieces: bytes, then_close: bool = False) -> Script:
    """Sends these bytes as the answer, a moment between them."""

    async def script(connection: Connection) -> None:
        while await connection.request() is not None:
            for number, piece in enumerate(pieces):
                if number:
                    await asyncio.sleep(0)
                await connection.send(piece)
            if then_close:
                return

    return script


@pytest.mark.parametrize("reply", [SIZED, CHUNKED, INTERIM + SIZED, INTERIM + CHUNKED])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_reply_is_the_same_however_it_is_cut(connect: Connect, reply: bytes, at_once: bool) -> None:
    pieces = [reply] if at_once else [reply[at : at + 1] for at in range(len(reply))]
    async with scripted(saying(*pieces)) as server:
        client = await connect(server.url)
        for _ in range(2):
            assert await taken(await client.send(get())) == b"hello world"
        assert server.connections == 1


@pytest.mark.parametrize("size", [0, 1, PIECE, HIGH_WATER - 1, HIGH_WATER, HIGH_WATER + 1, 2 * HIGH_WATER])
@pytest.mark.parametrize("chunk", [None, 1000])
async def test_a_reply_of_any_size_leaves_its_connection_fit_for_the_next(
    connect: Connect, size: int, chunk: int | None
) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    reply = head(200, ("content-length", str(size))) + body
    if chunk is not None:
        pieces = [body[at : at + chunk] for at in range(0, size, chunk)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        reply = head(200, ("transfer-encoding", "chunked")) + framed + b"0\r\n\r\n"
    async with scripted(saying(reply)) as server:
        client = await connect(server.url)
        for _ in range(3):
            assert await taken(await client.send(get())) == body
        assert server.connections == 1


@pytest.mark.parametrize("reply", [SIZED, CHUNKED, INTERIM + SIZED])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_reply_that_ends_early_anywhere_is_unknown(
    connect: Connect, spool: SpoolBudget, reply: bytes, reset: bool
) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(reply[: connection.number - 1])
        if reset:
            await asyncio.sleep(0.001)
            connection.reset()

    async with scripted(script) as server:
        client = await connect(server.url)
        for _ in range(len(reply)):
            assert not (await unknown(client, await post(spool, b"{}"))).timed_out
        assert len(server.requests) == server.connections == len(reply)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_without_a_length_ends_with_the_connection(connect: Connect, version: bytes) -> None:
    reply = [b"HTTP/%b 200 OK\r\n\r\n" % version, b"hello ", b"world"]
    async with scripted(saying(*reply, then_close=True)) as server:
        client = await connect(server.url)
        for number in (1, 2):
            assert await taken(await client.send(get())) == b"hello world"
            assert server.connections == number


async def test_a_body_without_a_length_that_is_reset_is_unknown(connect: Connect) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await asyncio.sleep(0.01)
        connection.reset()

    async with scripted(script) as server:
        assert "cut short" in str(await unknown(await connect(server.url), get()))


@pytest.mark.parametrize("status", [204, 304])
async def test_some_replies_have_no_body(connect: Connect, status: int) -> None:
    async with scripted(saying(b"HTTP/1.1 %d X\r\nContent-Length: 7\r\n\r\n" % status)) as server:
        client = await connect(server.url)
        for _ in range(2):
            assert await taken(await client.send(get())) == b""
        assert server.connections == 1


async def test_a_trailer_is_no_header(connect: Connect) -> None:
    async with scripted(saying(CHUNKED)) as server:
        reply = await (await connect(server.url)).send(get())
        reply.body.close()
        assert reply.content_type is None


async def test_a_header_that_is_there_twice_is_read_in_order(connect: Connect) -> None:
    twice = b"Content-Type: a/b\r\ncontent-type: c/d\r\nDate: x\r\nDate: y\r\n"
    async with scripted(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + twice + b"\r\n")) as server:
        reply = await (await connect(server.url)).send(get())
        reply.body.close()
        assert (reply.content_type, reply.date) == (b"a/b", "x, y")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: odd\r\n\r\nodd",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"<html>",
    ],
)
async def test_what_is_not_a_whole_reply_of_http_is_unknown(
    connect: Connect, spool: SpoolBudget, reply: bytes
) -> None:
    async with scripted(saying(reply, then_close=True)) as server:
        client = await connect(server.url)
        assert not (await unknown(client, await post(spool))).timed_out
        assert server.connections == 1


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (2 * LARGEST_HEAD),
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * LARGEST_HEAD,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * LARGEST_HEAD,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * LARGEST_HEAD,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"x" * (2 * LARGEST_HEAD),
    ],
)
async def test_a_head_without_end_is_given_up(connect: Connect, endless: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(endless)
        await connection.gone()

    async with scripted(script) as server:
        client = await connect(server.url)
        assert not (await unknown(client, get(timeout=30))).timed_out


async def test_headers_of_32_kib_are_taken(connect: Connect) -> None:
    head = b"HTTP/1.1 200 OK\r\nX: %b\r\nContent-Length: 2\r\n\r\n{}" % (b"x" * 32 * 1024)
    async with scripted(saying(head)) as server:
        assert await taken(await (await connect(server.url)).send(get())) == b"{}"
