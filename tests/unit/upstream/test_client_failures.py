"""The upstream client when things break: was it sent? Certainly not, or perhaps; and never twice."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from gateway.errors import GatewayError, internal_error
from gateway.spool import SpoolBudget
from gateway.upstream.client import Call
from tests.fakes.scripted_server import Connection, answering, head, scripted, silent
from tests.fakes.upstream_calls import Connect, get, never_sent, post, taken, unknown

Script = Callable[[Connection], Awaitable[None]]


async def test_a_refused_connection_was_never_sent(connect: Connect) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        client = await connect(f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert await never_sent(client, get()) == "no connection"


async def test_a_connection_that_never_stands_was_never_sent(connect: Connect) -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as full, ExitStack() as stack:
        address = full.getsockname()
        for _ in range(4):  # nobody accepts, so further connections are not answered
            waiting = socket.socket()
            waiting.setblocking(False)
            stack.callback(waiting.close)
            waiting.connect_ex(address)
        client = await connect(f"http://127.0.0.1:{address[1]}", connect_timeout=0.1)
        assert await never_sent(client, get()) == "connecting took too long"


@pytest.mark.parametrize("value", [b"a\r\nx-forged: 1", b"a\nb", b"a\0b", b"a\x7fb"])
async def test_a_header_that_cannot_be_sent_was_never_sent(
    connect: Connect, spool: SpoolBudget, value: bytes
) -> None:
    async with scripted(answering(200)) as server:
        client = await connect(server.url)
        call = await post(spool, b"{}")
        call.headers.append((b"content-type", value))
        assert await never_sent(client, call) == "a header holds control characters"
        assert server.connections == 0


async def test_a_path_that_cannot_be_sent_was_never_sent(connect: Connect) -> None:
    client = await connect("http://127.0.0.1:9")
    assert await never_sent(client, Call("GET", "/v1/tasks/a\nb", [], 1.0)) == "there is no such address"


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
    connect: Connect, spool: SpoolBudget, script: Script
) -> None:
    async with scripted(script) as server:
        client = await connect(server.url)
        assert not (await unknown(client, await post(spool))).timed_out
        assert server.connections == 1


async def much_of_a_body(connection: Connection) -> None:
    await connection.request()
    await connection.send(head(200, ("content-length", "5000000")) + b"x" * 3_000_000)


async def test_what_was_spooled_of_a_cut_answer_is_given_back(connect: Connect, spool: SpoolBudget) -> None:
    async with scripted(much_of_a_body) as server:
        client = await connect(server.url)
        assert "cut short" in str(await unknown(client, get()))
    assert spool.used == 0


async def test_a_full_spool_is_not_taken_for_a_lost_answer(connect: Connect, spool: SpoolBudget) -> None:
    spool.limit_bytes = 1_000_000
    async with scripted(answering(200, b"x" * 3_000_000)) as server:
        client = await connect(server.url)
        with pytest.raises(GatewayError) as caught:
            await client.send(get())
    assert (caught.value.reason, spool.used) == ("spool_full", 0)


async def test_a_request_that_cannot_be_read_to_its_end_is_unknown(
    connect: Connect, spool: SpoolBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> bytes:
        raise internal_error()

    async with scripted(silent) as server:
        client = await connect(server.url)
        call = await post(spool, b"x" * 3_000_000)
        monkeypatch.setattr("gateway.spool.SpooledBody._read", fail)
        assert "could not be read" in str(await unknown(client, call))
        assert call.body is not None
        call.body.close()


async def half_then_silence(connection: Connection) -> None:
    await half_a_body(connection)
    await connection.gone()


@pytest.mark.parametrize("script", [silent, half_then_silence])
async def test_silence_is_unknown_when_the_time_is_up(
    connect: Connect, spool: SpoolBudget, script: Script
) -> None:
    async with scripted(script) as server:
        client = await connect(server.url)
        error = await unknown(client, await post(spool, timeout=0.1))
        assert error.timed_out
        assert str(error) == "Pixapi gave no answer within 0.1 s"


async def answer_once(connection: Connection) -> None:
    await connection.request()
    await connection.answer(200, b"{}")
    await connection.request()


async def test_a_post_that_meets_a_closing_connection_is_not_sent_twice(
    connect: Connect, spool: SpoolBudget
) -> None:
    async with scripted(answer_once) as server:
        client = await connect(server.url)
        await taken(await client.send(await post(spool)))
        assert not (await unknown(client, await post(spool))).timed_out
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_get_that_meets_a_closing_connection_is_repeated_once(connect: Connect) -> None:
    async with scripted(answer_once) as server:
        client = await connect(server.url)
        await taken(await client.send(get()))
        await taken(await client.send(get()))
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_connection_the_other_side_has_closed_is_not_used(
    connect: Connect, spool: SpoolBudget
) -> None:
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


async def test_an_unknown_certificate_authority_was_never_sent(connect: Connect, tls: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls)
    async with scripted(answering(200, b"{}"), context) as server:
        address = f"https://127.0.0.1:{server.port}"
        distrusting = await connect(address, ca_file=None)
        assert await never_sent(distrusting, get()) == "TLS failed: check upstream.ca_file"
        assert server.requests == []
        trusting = await connect(address)
        assert await taken(await trusting.send(get())) == b"{}"


async def test_plain_http_where_tls_is_expected_was_never_sent(connect: Connect) -> None:
    async with scripted(answering(200, b"{}")) as server:
        client = await connect(f"https://127.0.0.1:{server.port}", connect_timeout=0.5)
        await never_sent(client, get())
