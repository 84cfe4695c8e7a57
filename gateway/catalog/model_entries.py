"""Model lists in Redis: one entry an account for all processes, and a lease for the one that refreshes it.

An entry carries the account it belongs to. It is named after one of the account's upstream keys, whose id no other
installation on the same Redis has; with that key it goes, and is read anew.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.cache import entry
from gateway.cache.client import CacheClient, CacheGone, Script

LEASE_MILLISECONDS = 15_000  # beyond a read's time-out

_GIVE_BACK = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")


@dataclass(frozen=True, slots=True)
class SharedList:
    """A list some process has read: Pixapi's entries by model id, and how many seconds ago."""

    entries: dict[str, dict[str, Any]]
    age: float


class _Value(msgspec.Struct, array_like=True):
    account: str
    lives: int  # milliseconds it was put for
    entries: dict[str, dict[str, Any]]


class ModelEntries:
    """`seconds`: how long a list may serve at all. Without Redis every process reads for itself."""

    def __init__(self, cache: CacheClient, seconds: float = 86_400.0) -> None:
        self._cache = cache
        self._lives = max(1, round(seconds * 1000))
        self._me = secrets.token_hex(8)

    async def find(self, account: str, ident: str) -> SharedList | None:
        """What any process has read of the account; `ident` names its entry."""
        found = await entry.fetch(self._cache, _name(ident))
        value = None if found is None else entry.decode(found[0], _Value)
        if found is None or value is None or value.account != account:
            return None
        return SharedList(value.entries, max(0, value.lives - found[1]) / 1000)

    async def take_lease(self, ident: str) -> bool:
        """Whether this process is to read the list; false while another one does."""
        try:
            taken = await self._cache.run(
                "SET", f"{_name(ident)}:lease", self._me, "NX", "PX", LEASE_MILLISECONDS
            )
        except CacheGone:
            return True
        return taken is not None

    def give_back(self, ident: str) -> None:
        """The read is over, whatever came of it."""
        self._cache.script_soon(_GIVE_BACK, [f"{_name(ident)}:lease"], [self._me])

    def put(self, account: str, ident: str, entries: dict[str, dict[str, Any]]) -> None:
        """Shows all processes what this one has read."""
        try:
            value = msgspec.msgpack.encode(_Value(account, self._lives, entries))
        except OverflowError:  # a number beyond 64 bits: every process reads such a list for itself
            return
        self._cache.run_soon("SET", _name(ident), value, "PX", self._lives)


def _name(ident: str) -> str:
    return f"pxg:models:{ident}"
