"""One connection to Redis: commands go out as they are packed, replies are heard in the order they come.

hiredis, redis-py's parser, packs and parses. redis-py's own connections are not used: they read one reply per awaited
call, through three coroutines (docs/adr/0019).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import hiredis

ReplyError = hiredis.ReplyError
Replies = Callable[[Any], None]
Command = tuple[str | bytes | int, ...]
# A command as it goes over the wire.
pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # a tuple of any length
_INCOMPLETE = object()


class Wire(asyncio.Protocol):
    """Hands each reply to `heard`, and tells `lost` once when the connection has ended without `close`."""

    def __init__(self, heard: Replies, lost: Callable[[], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it has ended, by whichever side."""
        return self._closed

    def send(self, packed: bytes) -> None:
        """Writes packed commands; nothing happens on a connection that has ended."""
        if self._transport is not None and not self._closed:
            self._transport.write(packed)

    def hand_over(self, heard: Replies, lost: Callable[[], None]) -> None:
        """From here on somebody else listens."""
        self._heard, self._lost = heard, lost

    def close(self) -> None:
        """Ends the connection at once: nothing is heard of it any more, `lost` included."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        if self._closed:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
            while not self._closed:
                reply = reader.gets()
                if reply is _INCOMPLETE:
                    return
                self._heard(reply)
        except hiredis.ProtocolError:  # whatever is at the other end, it is not Redis
            self.connection_lost(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._closed:
            self.close()
            self._lost()
