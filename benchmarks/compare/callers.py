"""Calls by asyncio where wrk cannot tell enough: each on a connection of its own, timed by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.compare.targets import Target

AT_ONCE = 200  # connections being opened


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: its status, its body, and the seconds from the first byte sent to the last one read."""

    status: int
    body: bytes
    seconds: float


class Caller:
    """One keep-alive connection to a target."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._target.port)

    async def ask(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Seen:
        """One call; raises OSError or IncompleteReadError when the connection breaks."""
        target, content = self._target, (body or "").encode()
        every = {
            "host": "bench",
            "authorization": f"Bearer {target.token}",
            **target.headers,
            **(headers or {}),
        }
        if body is not None:
            every |= {"content-type": "application/json", "content-length": str(len(content))}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items())]
        began = time.perf_counter()
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + content)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        found = dict(line.split(": ", 1) for line in head[1:] if line)
        if "content-length" in found:
            answer = await self._reader.readexactly(int(found["content-length"]))
        else:
            answer = await self._chunks()
        return Seen(int(head[0].split()[1]), answer, time.perf_counter() - began)

    async def _chunks(self) -> bytes:
        whole = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            whole += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return whole

    def close(self) -> None:
        self._writer.close()


async def opened(target: Target, count: int) -> list[Caller]:
    """So many connections, two hundred being opened at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one() -> Caller:
        async with room:
            made = Caller(target)
            await made.open()
            return made

    return list(await asyncio.gather(*(one() for _ in range(count))))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed (nearest rank); 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
