"""Connections of the upstream client: when they are kept, when not, and that nothing is left of those that end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from gateway.spool import PIECE, SpoolBudget
from gateway.upstream import transport
from gateway.upstream.client import LARGEST_ERROR_BODY, UpstreamClient
from gateway.upstream.connection import HIGH_WATER
from tests.fakes.scripted_server import Connection, Script, answering, head, scripted, silent
from tests.fakes.upstream_calls import Connect, get, never_sent, post, taken, unknown

MIB = 1024 * 1024


def idle(client: UpstreamClient) -> int:
    """How many connections wait for a call."""
    assert client._transport is not None
    return len(client._transport._idle)


async def until(what: object) -> None:
    """Waits until this callable says yes."""
    assert callable(what)
    async with asyncio.timeout(5):
        while not what():
            await asyncio.sleep(0.001)


def raw(reply: bytes) -> Script:
    async def script(connection: Connection) -> None:
        while await connection.request() is not None:
            await connection.send(reply)

    return script


# Kept or not -----------------------------------------------------------------------------------------------


async def test_the_connection_used_last_is_used_first(connect: Connect) -> None:
    async def script(connection: Connection) -> None:
        while await connection.request() is not None:
            if connection.number == 1:
                await asyncio.sleep(0.02)
            await connection.answer(200, b"%d" % connection.number)

    async with scripted(script) as server:
        client = await connect(server.url)
        first = asyncio.create_task(client.send(get()))
        await until(lambda: server.requests)
        assert await taken(await client.send(get())) == b"2"
        assert await taken(await first) == b"1"
        assert idle(client) == 2
        assert await taken(await client.send(get())) == b"1"
        assert server.connections == 2


@pytest.mark.parametrize(
    "reply",
    [
        head(200, ("content-length", "2"), ("connection", "close")) + b"{}",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\n{}",
        head(200, ("content-length", "2")) + b"{}more",
        head(200, ("content-length", "2")) + b"{}HTTP/1.1 200 OK\r\n",
        head(204) + b"{}",
        head(500, ("content-length", str(4 * MIB))) + b"x" * (LARGEST_ERROR_BODY + PIECE),
    ],
)
async def test_a_reply_that_forbids_it_ends_the_connection(connect: Connect, reply: bytes) -> None:
    async with scripted(raw(reply)) as server:
        client = await connect(server.url)
        for number in (1, 2):
            (await client.send(get())).body.close()
            assert (server.connections, idle(client)) == (number, 0)


async def test_an_idle_connection_is_closed_in_time(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "KEEP_ALIVE_SECONDS", 0.05)
    ended: list[int] = []

    async def script(connection: Connection) -> None:
        await answering(200, b"{}")(connection)
        ended.append(connection.number)

    async with scripted(script) as server:
        client = await connect(server.url)
        await asyncio.gather(*(_taken(client) for _ in range(3)))
        assert (server.connections, idle(client)) == (3, 3)
        await asyncio.sleep(0.03)
        await _taken(client)
        assert server.connections == 3
        await until(lambda: len(ended) == 2)
        assert idle(client) == 1
        await until(lambda: len(ended) == 3)
        assert idle(client) == 0
        await _taken(client)
        assert server.connections == 4


async def test_a_connection_that_was_idle_for_too_long_is_not_used_even_if_the_loop_was_busy(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "KEEP_ALIVE_SECONDS", 0.02)
    async with scripted(answering(200, b"{}")) as server:
        client = await connect(server.url)
        await _taken(client)
        time.sleep(0.03)
        await _taken(client)
        assert server.connections == 2


async def test_bytes_nobody_asked_for_end_an_idle_connection(connect: Connect, spool: SpoolBudget) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.answer(200, b"{}")
        await asyncio.sleep(0.005)
        await connection.send(head(200, ("content-length", "6")) + b"forged")
        await connection.gone()

    async with scripted(script) as server:
        client = await connect(server.url)
        await _taken(client)
        assert idle(client) == 1
        await until(lambda: not idle(client))
        assert await taken(await client.send(await post(spool))) == b"{}"
        assert server.connections == 2


@pytest.mark.parametrize("last", [b"", b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"])
async def test_an_end_the_loop_has_not_seen_yet_is_noticed_before_a_byte_is_sent(
    connect: Connect, spool: SpoolBudget, last: bytes
) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        client = await connect(f"http://127.0.0.1:{listening.getsockname()[1]}")
        for _ in range(2):
            call = asyncio.create_task(client.send(await post(spool)))
            async with asyncio.timeout(5):
                end, _ = await loop.sock_accept(listening)
            assert (await loop.sock_recv(end, 65536)).endswith(b"{}")
            await loop.sock_sendall(end, head(200, ("content-length", "2")) + b"{}")
            assert await taken(await call) == b"{}"
            assert idle(client) == 1
            if last:
                end.setblocking(True)
                end.sendall(last)
            end.close()  # and the next call comes before the loop looks at any socket


async def test_a_post_on_a_connection_that_ends_meanwhile_is_sent_once(
    connect: Connect, spool: SpoolBudget
) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.answer(200, b"{}")
        await connection.request()
        connection.reset()

    async with scripted(script) as server:
        client = await connect(server.url)
        await _taken(client)
        await unknown(client, await post(spool))
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_get_is_repeated_once_and_not_after_a_byte_of_its_reply(connect: Connect) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        if connection.number == 1:
            await connection.answer(200, b"{}")
            await connection.request()
            await connection.send(b"H")

    async with scripted(script) as server:
        client = await connect(server.url)
        await _taken(client)
        await unknown(client, get())
        assert (server.connections, len(server.requests)) == (1, 2)
        await unknown(client, get())  # on a new connection, which no other call can have worn out
        assert (server.connections, len(server.requests)) == (2, 3)


# Uploads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", [0, 1000, MIB])
async def test_a_reply_before_the_request_is_whole_counts_and_ends_the_connection(
    connect: Connect, spool: SpoolBudget, reads: int
) -> None:
    gone = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection._reader.readuntil(b"\r\n\r\n")
        await connection._reader.readexactly(reads)
        await connection.answer(413, b'{"error":1}')
        await connection.gone()
        gone.set()

    async with scripted(script) as server:
        client = await connect(server.url)
        call = await post(spool, b"x" * (20 * MIB))
        reply = await client.send(call)
        assert (reply.status, await taken(reply)) == (413, b'{"error":1}')
        assert idle(client) == 0
        await asyncio.wait_for(gone.wait(), 5)
        assert call.body is not None
        call.body.close()


async def test_a_reply_to_a_request_that_is_still_on_its_way_ends_the_connection(
    connect: Connect, spool: SpoolBudget
) -> None:
    """All of it was handed over, but most of it is still in this process."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.answer(200, b"{}")
        await connection._reader.readuntil(b"\r\n\r\n")
        await connection.answer(413, b"{}")
        await connection.gone()

    async with scripted(script) as server:
        client = await connect(server.url)
        await _taken(client)
        assert client._transport is not None
        [connection] = client._transport._idle
        connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        call = await post(spool, b"x" * (MIB - 1))
        assert call.body is not None
        assert call.body.in_memory
        assert await taken(await client.send(call)) == b"{}"
        assert (server.connections, idle(client)) == (1, 0)
        call.body.close()


@pytest.mark.parametrize("reads", [0, 1000, 3 * MIB])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_connection_lost_within_an_upload_is_unknown(
    connect: Connect, spool: SpoolBudget, reads: int, reset: bool
) -> None:
    async def script(connection: Connection) -> None:
        await connection._reader.readuntil(b"\r\n\r\n")
        await connection._reader.readexactly(reads)
        if reset:
            connection.reset()

    async with scripted(script) as server:
        client = await connect(server.url)
        call = await post(spool, b"x" * (20 * MIB))
        assert not (await unknown(client, call)).timed_out
        assert server.connections == 1
        assert call.body is not None
        call.body.close()


async def test_an_upload_waits_for_whoever_reads_it(connect: Connect, spool: SpoolBudget) -> None:
    more = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection._reader.readuntil(b"\r\n\r\n")
        await more.wait()
        await connection._reader.readexactly(30 * MIB)
        await connection.answer(200, b"{}")
        await connection.gone()

    async with scripted(script) as server:
        client = await connect(server.url)
        call = await post(spool, b"x" * (30 * MIB))
        sending = asyncio.create_task(client.send(call))
        await until(lambda: server.connections)
        await asyncio.sleep(0.1)
        assert client._transport is not None
        [connection] = client._transport._open
        assert 0 < connection._transport.get_write_buffer_size() <= 2 * PIECE
        more.set()
        assert await taken(await sending) == b"{}"
        assert idle(client) == 1
        assert call.body is not None
        call.body.close()


async def test_a_large_reply_waits_for_whoever_takes_it(
    connect: Connect, spool: SpoolBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, most = asyncio.Event(), 0
    client: UpstreamClient

    async def slow(self: object, chunk: bytes) -> None:
        nonlocal most
        if not write.is_set():
            await write.wait()
        assert client._transport is not None
        most = max(most, *(connection._held for connection in client._transport._open))

    async with scripted(answering(200, b"x" * (30 * MIB))) as server:
        client = await connect(server.url)
        monkeypatch.setattr("gateway.spool.SpooledBody.write", slow)
        call = asyncio.create_task(client.send(get()))
        await asyncio.sleep(0.1)
        write.set()
        (await call).body.close()
        assert 0 < most <= 2 * HIGH_WATER
        assert idle(client) == 1


# Ends ------------------------------------------------------------------------------------------------------


async def half_a_body(connection: Connection) -> None:
    await connection.request()
    await connection.send(head(200, ("content-length", "1000")) + b"x" * 500)
    await connection.gone()


@pytest.mark.parametrize("script", [silent, half_a_body])
@pytest.mark.parametrize("size", [2, 20 * MIB])
async def test_a_cancelled_call_ends_its_connection_and_gives_its_slot_back(
    connect: Connect, spool: SpoolBudget, script: Script, size: int
) -> None:
    gone: list[int] = []

    async def stalling(connection: Connection) -> None:
        if connection.number > 1:
            await answering(200, b"{}")(connection)
            return
        try:
            await script(connection)
        finally:  # within an upload there is no whole request
            gone.append(connection.number)

    async with scripted(stalling) as server:
        client = await connect(server.url, max_connections=1)
        call = await post(spool, b"x" * size)
        task = asyncio.create_task(client.send(call))
        await until(lambda: server.connections)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: gone == [1])
        await _taken(client)
        assert server.connections == 2
        assert call.body is not None
        call.body.close()


async def test_a_call_cancelled_while_it_connects_leaves_no_socket(connect: Connect, tls: Path) -> None:
    """Within TCP, and within a handshake of TLS that nobody answers; open sockets would be warned of."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"https://127.0.0.1:{listening.getsockname()[1]}"
        client = await connect(address, max_connections=1)
        for wait in (0, 0.001, 0.02):
            task = asyncio.create_task(client.send(get()))
            await asyncio.sleep(wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert client._transport is not None
        await until(lambda: not client._transport._open)


async def test_a_handshake_that_takes_too_long_was_never_sent(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"https://127.0.0.1:{listening.getsockname()[1]}"
        client = await connect(address, connect_timeout=0.05)
        assert await never_sent(client, get()) == "connecting took too long"
        client = await connect(address)
        assert await never_sent(client, get(timeout=0.05)) == "connecting took too long"


@pytest.mark.parametrize("secure", [True, False])
async def test_closing_ends_every_connection(connect: Connect, tls: Path, secure: bool) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls)
    running = 0

    async def script(connection: Connection) -> None:
        nonlocal running
        running += 1
        await answering(200, b"{}")(connection)
        running -= 1

    async with scripted(script, context if secure else None) as server:
        client = await connect(f"http{'s' if secure else ''}://127.0.0.1:{server.port}")
        await asyncio.gather(*(_taken(client) for _ in range(3)))
        assert (running, idle(client)) == (3, 3)
        started = asyncio.get_running_loop().time()
        await client.close()
        assert asyncio.get_running_loop().time() - started < 0.5
        await until(lambda: running == 0)
        assert await never_sent(client, get()) == "no connection"


async def test_closing_does_not_wait_for_a_peer_that_never_says_farewell(
    connect: Connect, tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls)
    monkeypatch.setattr(transport, "FAREWELL_SECONDS", 0.05)

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.answer(200, b"{}")
        cast("asyncio.Transport", connection._writer.transport).pause_reading()
        await asyncio.sleep(60)

    async with scripted(script, context) as server:
        client = await connect(f"https://127.0.0.1:{server.port}")
        await _taken(client)
        started = asyncio.get_running_loop().time()
        await client.close()
        assert asyncio.get_running_loop().time() - started < 0.5


async def _taken(client: UpstreamClient) -> None:
    with suppress(asyncio.CancelledError):
        assert await taken(await client.send(get())) == b"{}"
