"""A cache client for one test, and what stands in for the connection below it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gateway.cache.address import Address
from gateway.cache.client import CacheClient, CacheGone, Reply, Script
from gateway.cache.wire import Command, Replies, Wire
from gateway.clock import SystemClock
from gateway.telemetry import Metrics


@asynccontextmanager
async def cache_client(url: str, **other: Any) -> AsyncIterator[CacheClient]:
    """A client with the default numbers but for `other`, closed when the block ends."""
    plain: dict[str, Any] = {
        "connect_timeout": 0.1,
        "timeout": 0.15,
        "breaker_failures": 5,
        "breaker_seconds": 30.0,
        "clock": SystemClock(),
        "metrics": Metrics(),
    }
    client = CacheClient(url, **(plain | other))
    try:
        yield client
    finally:
        await client.close()


def failures(metrics: Metrics, kind: str) -> float:
    """How many failures of a kind were counted."""
    return metrics.registry.get_sample_value("gateway_redis_failures_total", {"kind": kind}) or 0.0


def is_left_alone(metrics: Metrics) -> bool:
    return metrics.registry.get_sample_value("gateway_redis_open") == 1


class FakeWire(Wire):
    """Keeps what is sent; the test says what comes back."""

    def __init__(self, heard: Replies, lost: Callable[[], None]) -> None:
        super().__init__(heard, lost)
        self.heard = heard
        self.lost = lost
        self.sent: list[bytes] = []

    def send(self, packed: bytes) -> None:
        assert not self.closed
        self.sent.append(packed)


class FakeAddress(Address):
    """Connects at once, to nothing. Its wires are kept in order."""

    def __init__(self) -> None:
        super().__init__("redis://192.0.2.1")
        self.wires: list[FakeWire] = []

    async def connect(self, heard: Replies, lost: Callable[[], None], timeout: float) -> Wire:
        wire = FakeWire(heard, lost)
        self.wires.append(wire)
        return wire


class GoneCache(CacheClient):
    """Redis that is gone: every command fails at once. Notes what was asked in the background."""

    def __init__(self) -> None:
        super().__init__(
            "redis://192.0.2.1",
            connect_timeout=0.1,
            timeout=0.15,
            breaker_failures=1,
            breaker_seconds=30.0,
            clock=SystemClock(),
            metrics=Metrics(),
        )
        self.asked = 0
        self.soon: list[tuple[str | bytes | int, ...]] = []

    async def run(self, *command: str | bytes | int) -> Any:
        self.asked += 1
        raise CacheGone("gone")

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        self.asked += 1
        raise CacheGone("gone")

    def run_soon(self, *command: str | bytes | int) -> Reply | None:
        self.soon.append(command)
        return None

    def run_all_soon(self, commands: Sequence[Command]) -> Reply | None:
        self.soon += commands
        return None
