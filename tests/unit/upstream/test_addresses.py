"""Names, and several addresses behind one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from gateway.upstream import addresses
from gateway.upstream.addresses import Address, Place
from tests.fakes.scripted_server import answering, scripted
from tests.fakes.upstream_calls import Connect, get, never_sent, taken

V4, V6 = socket.AF_INET, socket.AF_INET6


@contextmanager
def quiet() -> Iterator[Address]:
    """An address that answers no connection: it has more than it takes."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as full:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        yield V4, full.getsockname()
        for one in waiting:
            one.close()


@contextmanager
def listening() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield V4, server.getsockname()


def refusing() -> Address:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return V4, unused.getsockname()


def knowing(*found: Address) -> Place:
    """A place whose name was looked up already."""
    place = Place("pixapi.test", 80)
    place._known = list(found)
    place._known_until = float("inf")
    return place


async def test_an_address_that_keeps_quiet_delays_the_next_one_a_little() -> None:
    with quiet() as first, quiet() as second, listening() as third:
        started = asyncio.get_running_loop().time()
        with await knowing(first, second, third).connected() as found:
            assert found.getpeername() == third[1]
        took = asyncio.get_running_loop().time() - started
        assert took >= 2 * addresses.HEAD_START_SECONDS * 0.9


async def test_an_address_that_refuses_does_not_delay_the_next_one() -> None:
    with listening() as second:
        started = asyncio.get_running_loop().time()
        with await knowing(refusing(), second).connected() as found:
            assert found.getpeername() == second[1]
        assert asyncio.get_running_loop().time() - started < addresses.HEAD_START_SECONDS


async def test_when_all_refuse_there_is_none_and_the_name_is_looked_up_anew() -> None:
    place = knowing(refusing(), refusing())
    with pytest.raises(ConnectionRefusedError):
        await place.connected()
    with pytest.raises(socket.gaierror):
        await place.connected()


async def test_cancelled_it_leaves_no_socket() -> None:
    with quiet() as first, quiet() as second:
        task = asyncio.create_task(knowing(first, second).connected())
        await asyncio.sleep(1.5 * addresses.HEAD_START_SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1


def test_families_take_turns() -> None:
    six: list[Address] = [(V6, (f"::{n}", 80, 0, 0)) for n in range(3)]
    four: list[Address] = [(V4, (f"10.0.0.{n}", 80)) for n in range(2)]
    assert addresses._by_turns([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]
    assert addresses._by_turns([*four, *six]) == [four[0], six[0], four[1], six[1], six[2]]
    assert addresses._by_turns(four) == four
    assert addresses._by_turns([]) == []


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_name_is_looked_up_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        nonlocal asked
        asked += 1
        return [(V4, socket.SOCK_STREAM, 6, "", address)]

    with listening() as (_, address):
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        place = Place("pixapi.test", 1)
        for _ in range(3):
            (await place.connected()).close()
        assert asked == 1
        place._known_until -= addresses.KNOWN_SECONDS
        (await place.connected()).close()
        assert asked == 2


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_many_at_once_share_one_look_and_who_leaves_ends_it_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, found = 0, asyncio.Event()

    async def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        nonlocal asked
        asked += 1
        await found.wait()
        return [(V4, socket.SOCK_STREAM, 6, "", address)]

    with listening() as (_, address):
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        place = Place("pixapi.test", 1)
        tasks = [asyncio.create_task(place.connected()) for _ in range(20)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        found.set()
        for task in tasks[1:]:
            (await task).close()
        assert asked == 1


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_one_that_was_silent_for_too_long_is_looked_up_anew() -> None:
    with quiet() as silent:
        place = knowing(silent)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await place.connected()
        with pytest.raises(socket.gaierror):
            await place.connected()


async def test_every_address_is_shown_before_one_is_used() -> None:
    def check(address: str) -> None:
        raise OSError(address)

    with pytest.raises(OSError, match=r"169\.254\.169\.254"):
        await Place("0xa9fea9fe", 80, check).connected()


async def test_a_name_that_is_not_known_was_never_sent(connect: Connect) -> None:
    client = await connect("http://nobody.invalid")
    assert await never_sent(client, get()) == "its name was not found"


async def test_an_origin_may_be_a_name_or_an_address_of_ipv6(connect: Connect) -> None:
    async with scripted(answering(200, b"{}")) as server:
        client = await connect(f"http://localhost:{server.port}")
        await taken(await client.send(get()))
        assert server.requests[0].values("host") == [f"localhost:{server.port}"]
    loop = asyncio.get_running_loop()
    try:
        six = socket.create_server(("::1", 0), family=V6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with six:
        six.setblocking(False)
        origin = f"[::1]:{six.getsockname()[1]}"
        client = await connect(f"http://{origin}")
        call = asyncio.create_task(client.send(get()))
        end, _ = await loop.sock_accept(six)
        with end:
            assert f"host: {origin}\r\n".encode() in await loop.sock_recv(end, 65536)
            await loop.sock_sendall(end, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            assert await taken(await call) == b"{}"
