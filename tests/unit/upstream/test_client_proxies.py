"""The upstream client behind a proxy: of the settings, or of the environment."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path

import pytest

from gateway.spool import SpoolBudget
from tests.fakes.scripted_server import Connection, answering, scripted
from tests.fakes.upstream_calls import Connect, get, never_sent, post, taken

BASE = "http://pixapi.test"


async def test_a_proxy_gets_the_whole_address_and_nothing_more_than_pixapi_would(
    connect: Connect, spool: SpoolBudget
) -> None:
    async with scripted(answering(200, b"{}")) as proxy:
        client = await connect(BASE, proxy=proxy.url)
        call = await post(spool, b"{}")
        assert await taken(await client.send(call)) == b"{}"
        (request,) = proxy.requests
    assert (request.target, request.body) == (f"{BASE}/v1/images/generations", b"{}")
    expected = [name.decode() for name, _ in call.headers] + ["host"]
    assert sorted(name.lower() for name, _ in request.headers) == sorted(expected)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_the_environment_names_a_proxy(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    async with scripted(answering(200, b"{}")) as proxy:
        monkeypatch.setenv(name, f"{scheme}127.0.0.1:{proxy.port}")
        client = await connect(BASE)
        await taken(await client.send(get()))
        assert [request.target for request in proxy.requests] == [f"{BASE}/v1/models"]


@pytest.mark.parametrize("bypass", ["127.0.0.1", "other.test, 127.0.0.1", "*"])
async def test_no_proxy_is_obeyed(connect: Connect, monkeypatch: pytest.MonkeyPatch, bypass: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", bypass)
    async with scripted(answering(200, b"{}")) as server:
        client = await connect(server.url)
        await taken(await client.send(get()))
        assert [request.target for request in server.requests] == ["/v1/models"]


async def test_the_setting_is_stronger_than_the_environment(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    async with scripted(answering(200, b"{}")) as proxy:
        client = await connect(BASE, proxy=proxy.url)
        await taken(await client.send(get()))
        assert len(proxy.requests) == 1


async def test_a_proxy_of_another_scheme_is_not_ours(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with scripted(answering(200, b"{}")) as server:
        client = await connect(server.url)
        assert await taken(await client.send(get())) == b"{}"


async def test_the_password_of_a_proxy_goes_to_the_proxy(connect: Connect) -> None:
    async with scripted(answering(200, b"{}")) as proxy:
        client = await connect(BASE, proxy=f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        await taken(await client.send(get()))
        (request,) = proxy.requests
    assert request.values("proxy-authorization") == ["Basic " + base64.b64encode(b"user:p@ss").decode()]


async def test_an_unreachable_proxy_was_never_sent(connect: Connect) -> None:
    client = await connect(BASE, proxy="http://127.0.0.1:1")
    assert await never_sent(client, get()) == "the proxy was not reached: check upstream.proxy"


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_refused_tunnel_was_never_sent(connect: Connect, spool: SpoolBudget, status: int) -> None:
    async def refuse(connection: Connection) -> None:
        await connection.request()
        await connection.answer(status, b"no")

    async with scripted(refuse) as proxy:
        client = await connect("https://pixapi.test", proxy=proxy.url)
        reason = await never_sent(client, await post(spool))
        assert reason == f"the proxy refused with status {status}: check upstream.proxy"
        (request,) = proxy.requests
        assert (request.method, request.target) == ("CONNECT", "pixapi.test:443")
        assert request.values("authorization") == []


@pytest.fixture
def context(tls: Path) -> ssl.SSLContext:
    """What a server speaks TLS by that the clients trust."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(tls)
    return made


@pytest.mark.parametrize("secure", [False, True])
async def test_an_origin_by_tls_is_reached_through_a_tunnel(
    connect: Connect, spool: SpoolBudget, context: ssl.SSLContext, secure: bool
) -> None:
    async with scripted(answering(200, b"{}"), context) as server:

        async def tunnel(connection: Connection) -> None:
            await connection.request()
            await connection.tunnel(server.port)

        async with scripted(tunnel, context if secure else None) as proxy:
            scheme = "https" if secure else "http"
            client = await connect(
                f"https://127.0.0.1:{server.port}", proxy=f"{scheme}://user:p%40ss@127.0.0.1:{proxy.port}"
            )
            for _ in range(2):
                assert await taken(await client.send(await post(spool))) == b"{}"
            [asked] = proxy.requests
            await client.close()
    place = f"127.0.0.1:{server.port}"
    assert (asked.method, asked.target, asked.values("host")) == ("CONNECT", place, [place])
    assert asked.values("proxy-authorization") == ["Basic " + base64.b64encode(b"user:p@ss").decode()]
    assert [request.target for request in server.requests] == ["/v1/images/generations"] * 2
    assert [request.values("proxy-authorization") for request in server.requests] == [[], []]
    assert server.connections == 1


async def test_a_proxy_by_tls_takes_a_plain_origin_too(connect: Connect, context: ssl.SSLContext) -> None:
    async with scripted(answering(200, b"{}"), context) as proxy:
        client = await connect(BASE, proxy=f"https://127.0.0.1:{proxy.port}")
        assert await taken(await client.send(get())) == b"{}"
        assert [request.target for request in proxy.requests] == [f"{BASE}/v1/models"]


async def test_a_proxy_that_is_not_trusted_was_not_reached(connect: Connect, context: ssl.SSLContext) -> None:
    async with scripted(answering(200, b"{}"), context) as proxy:
        client = await connect(BASE, proxy=f"https://127.0.0.1:{proxy.port}", ca_file=None)
        assert await never_sent(client, get()) == "the proxy was not reached: check upstream.proxy"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 100 x\r\n\r\n"])
async def test_a_proxy_that_says_nothing_of_use_was_not_reached(connect: Connect, answer: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer)

    async with scripted(script) as proxy:
        client = await connect("https://pixapi.test", proxy=proxy.url)
        assert await never_sent(client, get()) == "the proxy was not reached: check upstream.proxy"


async def test_tls_that_fails_behind_a_tunnel_was_never_sent(connect: Connect) -> None:
    async with scripted(answering(200, b"{}")) as server:

        async def tunnel(connection: Connection) -> None:
            await connection.request()
            await connection.tunnel(server.port)

        async with scripted(tunnel) as proxy:
            client = await connect(f"https://127.0.0.1:{server.port}", proxy=proxy.url, connect_timeout=0.5)
            await never_sent(client, get())
            assert server.requests == []


async def test_a_proxy_that_keeps_quiet_takes_the_time_of_connecting(connect: Connect) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.gone()

    async with scripted(script) as proxy:
        client = await connect("https://pixapi.test", proxy=proxy.url, connect_timeout=0.05)
        assert await never_sent(client, get()) == "connecting took too long"
        task = asyncio.create_task(client.send(get()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_proxy_may_refuse_a_plain_origin_in_its_own_words(connect: Connect) -> None:
    async with scripted(answering(407, b"who are you?")) as proxy:
        reply = await (await connect(BASE, proxy=proxy.url)).send(get())
        assert (reply.status, await taken(reply)) == (407, b"who are you?")
