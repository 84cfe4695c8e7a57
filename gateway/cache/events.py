"""Short notices to all processes: "forget this key", "this task was read". Lost when Redis is gone.

Whoever relies on them also has a bound of its own (a fixed life of what it caches), and is told when notices may have
been missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from gateway.cache.address import Address
from gateway.cache.client import CacheClient, CacheGone
from gateway.cache.wire import Wire, pack
from gateway.clock import Clock

log = logging.getLogger("gateway.events")

CHANNEL = "pxg:events"
PING_SECONDS = 1.0
DEAD_SECONDS = 2.5  # silence after which the connection is given up
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Event:
    """A notice as it goes over the wire; `sent_at` is unix seconds by the sender's clock."""

    topic: str
    ident: str
    sent_at: float


class Events:
    """Publishes through `client`, and hears by a connection of its own while `run` runs."""

    def __init__(self, url: str, client: CacheClient, clock: Clock, *, connect_timeout: float) -> None:
        self._address = Address(url)
        self._client = client
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._listeners: dict[str, list[Callable[[Event], None]]] = defaultdict(list)
        self._gaps: list[Callable[[], None]] = []
        self._connected = False

    @property
    def connected(self) -> bool:
        """Whether this process hears what is published now."""
        return self._connected

    def listen(self, topic: str, heard: Callable[[Event], None]) -> None:
        """`heard` is called on the loop with every event of the topic, this process's own included."""
        self._listeners[topic].append(heard)

    def on_gap(self, missed: Callable[[], None]) -> None:
        """`missed` is called when events may have been missed: the subscription broke, or was made (again)."""
        self._gaps.append(missed)

    def publish(self, topic: str, ident: str) -> None:
        """Sends an event in the background."""
        self._client.run_soon("PUBLISH", CHANNEL, self._message(topic, ident))

    async def publish_now(self, topic: str, ident: str) -> bool:
        """Sends an event; False when Redis did not take it."""
        try:
            await self._client.run("PUBLISH", CHANNEL, self._message(topic, ident))
        except CacheGone:
            return False
        return True

    async def run(self) -> NoReturn:
        """For ever: subscribes, delivers, and subscribes again when the connection is lost."""
        attempt, told = 0, False
        while True:
            subscription = _Subscription(self._deliver)
            try:
                await subscription.begin(self._address, self._connect_timeout)
                attempt, told, self._connected = 0, False, True
                self._tell_gap()
                await subscription.watch()
            except OSError as error:
                if not told:
                    told = True
                    log.warning("events are not heard", extra={"detail": str(error) or "no answer in time"})
            finally:
                subscription.close()
                if self._connected:
                    self._connected = False
                    self._tell_gap()
            await asyncio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
            attempt += 1

    def _message(self, topic: str, ident: str) -> bytes:
        return msgspec.json.encode(Event(topic, ident, self._clock.now().timestamp()))

    def _deliver(self, message: bytes) -> None:
        try:
            event = msgspec.json.decode(message, type=Event)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return  # another program's, or another version's
        for heard in self._listeners.get(event.topic, ()):
            _call(heard, event)

    def _tell_gap(self) -> None:
        for missed in self._gaps:
            _call(missed)


class _Subscription:
    """One connection that has subscribed; `deliver` gets each message's bytes."""

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self._deliver = deliver
        self._wire: Wire | None = None
        self._heard_at = 0.0
        self._changed = asyncio.Event()  # subscribed, or lost
        self._subscribed = self._lost = False

    async def begin(self, address: Address, timeout: float) -> None:
        """Connects and subscribes; raises OSError when either does not work in `timeout` seconds each."""
        self._wire = await address.connect(self._hear, self._lose, timeout)
        self._wire.send(pack(("SUBSCRIBE", CHANNEL)))
        async with asyncio.timeout(timeout):
            await self._changed.wait()
        if not self._subscribed:
            raise ConnectionResetError("closed while subscribing")
        self._changed.clear()

    async def watch(self) -> None:
        """Returns never: raises OSError when the connection is lost, or silent although it is asked."""
        loop = asyncio.get_running_loop()
        while not self._lost:
            if loop.time() - self._heard_at > DEAD_SECONDS:
                raise TimeoutError(f"silent for {DEAD_SECONDS:g} s")
            if self._wire is not None:
                self._wire.send(pack(("PING",)))
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue
        raise ConnectionResetError("the connection broke")

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()

    def _hear(self, reply: Any) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        match reply:
            case [b"message", _, bytes(message)]:
                self._deliver(message)
            case [b"subscribe", *_]:
                self._subscribed = True
                self._changed.set()
            case [b"pong", *_]:
                pass
            case _:  # an error, such as a login without the right to subscribe
                log.warning("redis refuses to subscribe", extra={"detail": str(reply)[:200]})
                self._lose()

    def _lose(self) -> None:
        self._lost = True
        self._changed.set()


def _call(listener: Callable[..., None], *arguments: Event) -> None:
    try:
        listener(*arguments)
    except Exception:
        log.exception("a listener to events failed")
