"""From a host and a port to a connected socket: names looked up, and several addresses tried side by side."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from itertools import chain, zip_longest

# A burst of calls makes many connections at once, and looking names up takes a thread each.
KNOWN_SECONDS = 60.0
# How long an address may keep quiet until the next one is tried beside it (RFC 8305).
HEAD_START_SECONDS = 0.25

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


class Place:
    """A host, by name or by number, and a port. `check` is shown every address before anything is sent to one of them
    and may raise OSError."""

    def __init__(self, host: str, port: int, check: Callable[[str], None] | None = None) -> None:
        self.host = host
        self.authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._port = port
        self._check = check
        self._known: list[Address] = []
        self._known_until = 0.0
        self._looking: asyncio.Task[list[Address]] | None = None

    async def connected(self) -> socket.socket:
        """A new connection; OSError when there is none, `socket.gaierror` when the name is not known."""
        addresses = await self._addresses()
        try:
            if len(addresses) == 1:
                return await _connected(addresses[0])
            return await _first_connected(addresses)
        except (OSError, asyncio.CancelledError):  # who waited long enough cancels
            self.forget()
            raise

    def forget(self) -> None:
        """Looks its addresses up again: it may have moved."""
        self._known_until = 0.0

    async def _addresses(self) -> list[Address]:
        if asyncio.get_running_loop().time() < self._known_until:
            return self._known
        if self._looking is None:  # one look for all who wait
            self._looking = asyncio.create_task(self._look_up())
            self._looking.add_done_callback(self._looked)
        return await asyncio.shield(self._looking)

    def _looked(self, looking: asyncio.Task[list[Address]]) -> None:
        self._looking = None
        if not looking.cancelled():
            looking.exception()  # those who asked may have left

    async def _look_up(self) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:  # a number needs no thread
            found = socket.getaddrinfo(
                self.host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except socket.gaierror:
            found = await loop.getaddrinfo(self.host, self._port, type=socket.SOCK_STREAM)
        if self._check is not None:
            for *_, address in found:
                self._check(str(address[0]))
        self._known = _by_turns([(family, address) for family, *_, address in found])
        self._known_until = loop.time() + KNOWN_SECONDS
        return self._known


def _by_turns(addresses: list[Address]) -> list[Address]:
    """One of each family after the other, in the order given, so that a family without a way out delays little."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    turns = chain.from_iterable(zip_longest(first, others))
    return [address for address in turns if address is not None]


async def _connected(address: Address) -> socket.socket:
    family, where = address
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(opened, where)
    except BaseException:
        opened.close()
        raise
    return opened


async def _first_connected(addresses: list[Address]) -> socket.socket:
    """Of several the one that answers first, each with a head start on the next."""
    waiting, failure = list(addresses), OSError("no address")
    running: set[asyncio.Task[socket.socket]] = set()
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(_connected(waiting.pop(0))))
            done, _ = await asyncio.wait(
                running, timeout=HEAD_START_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                running.discard(task)
                error = task.exception()
                if error is None:
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                failure = error
        raise failure
    finally:
        for task in running:
            task.add_done_callback(_close)
            task.cancel()


def _close(task: asyncio.Task[socket.socket]) -> None:
    """Of two that came at the same time one is too many."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
