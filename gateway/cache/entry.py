"""Values kept in Redis for a time: fetched with the time they have left, read with distrust.

What is not there, not whole, or not of the expected shape counts as not there: whoever asked reads the truth instead.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from gateway.cache.client import CacheClient, CacheGone, Script

Value = TypeVar("Value")

_GET = Script("""
local value = redis.call('GET', KEYS[1])
return value and {value, redis.call('PTTL', KEYS[1])}
""")


async def fetch(cache: CacheClient, name: str) -> tuple[bytes, int] | None:
    """The value and the milliseconds it has left; None without one, and without Redis."""
    try:
        reply = await cache.script(_GET, [name], [])
    except CacheGone:
        return None
    if not isinstance(reply, list) or len(reply) != 2:
        return None
    raw, left = reply
    if not isinstance(raw, bytes) or not isinstance(left, int) or left <= 0:
        return None
    return raw, left


def decode(raw: bytes, kind: type[Value]) -> Value | None:
    """The value in msgpack; None when it is no such value."""
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
