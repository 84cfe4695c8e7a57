"""An upstream client for tests: its spool, and an environment without proxies. All of it on both loops: transports
differ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop

from gateway.spool import SpoolBudget
from gateway.upstream.client import UpstreamClient
from tests.fakes.certificate import self_signed
from tests.fakes.upstream_calls import Connect


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop the gateway runs on, and the one that warns of more."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
def spool(tmp_path: Path) -> SpoolBudget:
    return SpoolBudget(64 * 1024 * 1024, tmp_path)


@pytest.fixture
async def connect(spool: SpoolBudget, tls: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    """Opens clients that trust `tls` alone; afterwards nothing of theirs may be left in the spool."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    async with AsyncExitStack() as stack:

        async def make(url: str, **options: object) -> UpstreamClient:
            trusting = {"ca_file": str(tls)} | options  # the system's authorities take long to load
            client = UpstreamClient(url, spool, **trusting)  # type: ignore[arg-type]
            stack.push_async_callback(client.close)
            await client.open()
            return client

        yield make
    assert spool.used == 0


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file: a server's key and its certificate, which is its own authority."""
    return self_signed(tmp_path_factory.mktemp("tls") / "server.pem")
