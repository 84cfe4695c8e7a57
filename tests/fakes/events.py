"""Events without Redis: what is to be heard is said by the test."""

from __future__ import annotations

from collections.abc import Callable

from gateway.admin.api.route import Topic
from gateway.cache.events import Event, Events


class FakeEvents(Events):
    """`hear` delivers an event as if another process had sent it, `gap` says that some may have been missed."""

    def __init__(self) -> None:
        self.published: list[tuple[str, str]] = []
        self._heard: list[tuple[str, Callable[[Event], None]]] = []
        self._missed: list[Callable[[], None]] = []

    def listen(self, topic: str, heard: Callable[[Event], None]) -> None:
        self._heard.append((topic, heard))

    def on_gap(self, missed: Callable[[], None]) -> None:
        self._missed.append(missed)

    def publish(self, topic: str, ident: str) -> None:
        self.published.append((topic, ident))

    async def publish_now(self, topic: str, ident: str) -> bool:
        self.publish(topic, ident)
        return True

    def hear(self, event: Event) -> None:
        for topic, heard in self._heard:
            if topic == event.topic:
                heard(event)

    def gap(self) -> None:
        for missed in self._missed:
            missed()


class LinkedEvents(FakeEvents):
    """What is published is heard at once by every one of the `peers`, the sender among them, as Redis does it."""

    def __init__(self, peers: list[LinkedEvents] | None = None) -> None:
        super().__init__()
        self.peers = [] if peers is None else peers
        self.peers.append(self)

    def publish(self, topic: str, ident: str) -> None:
        super().publish(topic, ident)
        for peer in self.peers:
            peer.hear(Event(topic, ident, 0.0))


class NobodyListens:
    """`Changed` for a process without caches."""

    async def announce(self, topic: Topic, ident: str) -> None:
        return
