"""The upstream client behind a proxy: of the settings, or of the environment."""

from __future__ import annotations

import base64

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


@pytest.mark.filterwarnings("ignore:BasicAuth is dep:DeprecationWarning")  # both are httpx-aiohttp's
@pytest.mark.filterwarnings("ignore:The 'proxy_auth' parameter is dep:DeprecationWarning")
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
