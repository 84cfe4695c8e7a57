"""Addresses, and what a connection says first and makes of what it hears."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.cache.address import Address
from gateway.cache.wire import ReplyError, Wire, pack
from tests.fakes.certificate import self_signed

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server that does `talk` with whoever connects, then closes."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Heard:
    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.lost = 0

    def lose(self) -> None:
        self.lost += 1

    def wire(self) -> Wire:
        return Wire(self.replies.append, self.lose)


def test_a_command_is_packed_with_text_bytes_and_numbers() -> None:
    assert pack(("SET", b"\xff", 12)) == b"*3\r\n$3\r\nSET\r\n$1\r\n\xff\r\n$2\r\n12\r\n"


def test_replies_are_heard_one_by_one_however_they_are_cut() -> None:
    heard = Heard()
    wire = heard.wire()
    for byte in b"+OK\r\n$2\r\nab\r\n*2\r\n:1\r\n$-1\r\n-NOSCRIPT none\r\n":
        wire.data_received(bytes([byte]))
    assert heard.replies[:3] == [b"OK", b"ab", [1, None]]
    assert isinstance(heard.replies[3], ReplyError)
    assert str(heard.replies[3]) == "NOSCRIPT none"


def test_what_is_not_redis_ends_the_connection_once() -> None:
    heard = Heard()
    wire = heard.wire()
    wire.data_received(b"HTTP/1.1 400 Bad Request\r\n")
    wire.connection_lost(None)
    assert (heard.replies, heard.lost, wire.closed) == ([], 1, True)


def test_nothing_is_heard_after_it_was_closed_even_of_the_same_piece() -> None:
    replies: list[Any] = []

    def hear_one(reply: Any) -> None:
        replies.append(reply)
        wire.close()

    wire = Wire(hear_one, lambda: replies.append("lost"))
    wire.data_received(b"+one\r\n+two\r\n")
    wire.data_received(b"+three\r\n")
    wire.connection_lost(None)
    assert replies == [b"one"]


LOGINS = [
    ("redis://127.0.0.1:{port}", b""),
    ("redis://127.0.0.1:{port}/3", pack(("SELECT", 3))),
    ("redis://:p%40ss@127.0.0.1:{port}", pack(("AUTH", "p@ss"))),
    ("redis://anna:pw@127.0.0.1:{port}/2", pack(("AUTH", "anna", "pw")) + pack(("SELECT", 2))),
]


@pytest.mark.parametrize(("url", "greeting"), LOGINS)
async def test_a_connection_logs_in_first(url: str, greeting: bytes) -> None:
    said: asyncio.Queue[bytes] = asyncio.Queue()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.put_nowait(await reader.readexactly(len(greeting)))
        writer.write(b"+OK\r\n" * greeting.count(b"*"))
        said.put_nowait(await reader.readexactly(4))

    heard = Heard()
    async with listening(talk) as port, asyncio.timeout(2):
        wire = await Address(url.format(port=port)).connect(heard.replies.append, heard.lose, 1.0)
        wire.send(b"then")
        assert [await said.get(), await said.get()] == [greeting, b"then"]
        wire.close()
    assert heard.replies == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"-WRONGPASS no\r\n", ConnectionRefusedError), (b"", ConnectionResetError), (None, TimeoutError)],
)
async def test_a_login_that_does_not_work_is_no_connection(
    answer: bytes | None, error: type[OSError]
) -> None:
    closed = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if answer is not None:
            writer.write(answer)
        if answer != b"":
            assert await reader.read(100) == b""
        closed.set()

    heard = Heard()
    async with listening(talk) as port, asyncio.timeout(2):
        with pytest.raises(error):
            await Address(f"redis://:pw@127.0.0.1:{port}").connect(heard.replies.append, heard.lose, 0.2)
        await closed.wait()
    assert (heard.replies, heard.lost) == ([], 0)


async def test_tls_is_trusted_by_the_certificate_of_the_address(tmp_path: Path) -> None:
    pem = self_signed(tmp_path / "redis.pem")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(pack(("AUTH", "pw"))))
        writer.write(b"+OK\r\n+hello\r\n")
        await reader.read()

    heard = Heard()
    async with listening(talk, server) as port, asyncio.timeout(5):
        url = f"rediss://:pw@127.0.0.1:{port}"
        with pytest.raises(ssl.SSLCertVerificationError):
            await Address(url).connect(heard.replies.append, heard.lose, 2.0)
        wire = await Address(f"{url}?ssl_ca_certs={pem}").connect(heard.replies.append, heard.lose, 2.0)
        wire.close()
    assert heard.lost == 0


async def test_nobody_listens() -> None:
    async def talk(*_: object) -> None:
        raise AssertionError

    async with listening(talk) as port:
        pass
    with pytest.raises(ConnectionRefusedError):
        await Address(f"redis://127.0.0.1:{port}").connect(print, print, 1.0)
    with pytest.raises(FileNotFoundError):
        await Address("unix:///nowhere/at.all").connect(print, print, 1.0)
