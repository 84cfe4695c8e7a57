"""Redis without Redis: one that is gone, one in memory, and events that reach whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.cache.client import CacheClient, CacheGone, Script
from gateway.cache.events import Event, Events


class NoCache(CacheClient):
    """Gone. `told` is what was sent in the background."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    async def run(self, *command: str | bytes | int) -> Any:
        raise CacheGone("gone")

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        raise CacheGone("gone")

    def run_soon(self, *command: str | bytes | int) -> None:
        self.told.append(command)

    def script_soon(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> None:
        self.told.append((*keys, *args))


class LocalEvents(Events):
    """Delivers at once to every one of its `peers`, itself among them, as Redis does."""

    def __init__(self, peers: list[LocalEvents] | None = None) -> None:
        self.peers = [] if peers is None else peers
        self.peers.append(self)
        self.heard: dict[str, list[Callable[[Event], None]]] = {}
        self.missed: list[Callable[[], None]] = []
        self.published: list[tuple[str, str]] = []

    def listen(self, topic: str, heard: Callable[[Event], None]) -> None:
        self.heard.setdefault(topic, []).append(heard)

    def on_gap(self, missed: Callable[[], None]) -> None:
        self.missed.append(missed)

    def publish(self, topic: str, ident: str) -> None:
        self.published.append((topic, ident))
        for peer in self.peers:
            for hear in peer.heard.get(topic, []):
                hear(Event(topic, ident, 0.0))
