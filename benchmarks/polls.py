"""Many clients of one running task over two gateway processes: what Pixapi sees of them, and what they cost.

`python -m benchmarks polls` polls all the time for some seconds; `python -m benchmarks waiting` has them wait for the
task to end with `Prefer: wait`. Gateways, simulated Pixapi, Postgres and Redis are started for it on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from gateway.db import migrate
from tests.e2e import harness
from tests.servers import create_database, database_servers, drop_database

MODEL = "gemini-2.5-flash-image"
AT_ONCE = 100  # connections being opened


@dataclass
class Scene:
    """Two gateways with one upstream key, and one task that runs until it is told to end."""

    gateways: list[harness.Process]
    sandbox: str
    key: str
    task: str
    seconds: list[float] = field(default_factory=list)  # of each answer
    seen: Counter[str] = field(default_factory=Counter)

    def reads(self) -> int:
        """How often Pixapi was asked for the task."""
        journal = httpx.get(f"{self.sandbox}/sandbox/journal?limit=1000", trust_env=False).json()["data"]
        return sum(entry["path"] == f"/v1/tasks/{self.task}" for entry in journal)

    def resident(self) -> int:
        """Bytes of memory of both gateways."""
        pages = [int(Path(f"/proc/{one.child.pid}/statm").read_text().split()[1]) for one in self.gateways]
        return sum(pages) * 4096

    async def ask(self, client: Client, *headers: str) -> None:
        began = time.perf_counter()
        status, cache = await client.get(f"/v1/tasks/{self.task}", *headers)
        self.seconds.append(time.perf_counter() - began)
        self.seen[f"{status} {cache}"] += 1

    @contextlib.asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[list[Client]]:
        """Connections to both gateways in turn, each of which has polled once."""
        room = asyncio.Semaphore(AT_ONCE)

        async def opened(number: int) -> Client:
            async with room:
                client = Client(self.gateways[number % 2].port, self.key)
                await client.open()
                await self.ask(client)
                return client

        made = await asyncio.gather(*(opened(number) for number in range(count)))
        self.seconds.clear()
        self.seen.clear()
        yield made
        for client in made:
            client.close()


class Client:
    """One keep-alive connection that can do no more than GET."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def get(self, path: str, *headers: str) -> tuple[int, str]:
        """Status and x-cache."""
        lines = [f"GET {path} HTTP/1.1", "host: bench", f"authorization: Bearer {self._key}", *headers]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        found = dict(line.split(": ", 1) for line in head[1:] if line)
        await self._reader.readexactly(int(found["content-length"]))
        return int(head[0].split()[1]), found.get("x-cache", "-")

    def close(self) -> None:
        self._writer.close()


@contextlib.contextmanager
def scene() -> Iterator[Scene]:
    with (
        database_servers() as (admin_url, redis_url),
        harness.sandbox("--speed", "0.01") as sandbox,
        contextlib.ExitStack() as stack,
    ):
        url = create_database(admin_url, "bench_polls")
        stack.callback(drop_database, admin_url, "bench_polls")
        migrate.upgrade(url)
        one = stack.enter_context(harness.gateway(url, redis_url, sandbox.base))
        other = stack.enter_context(harness.beside(one.environment))
        key = one.key(one.team()["slug"])
        one.upstream_key("sk_bench_1")
        with one.client(key) as client:
            order = {"model": MODEL, "prompt": "A cup"}
            task = client.post("/v1/async/images/generations", json=order).raise_for_status().json()["id"]
        yield Scene([one.process, other], sandbox.base, key, task)


async def poll(here: Scene, count: int, seconds: float) -> None:
    async with here.clients(count) as clients:
        before, ends = here.reads(), time.monotonic() + seconds

        async def keep_polling(client: Client) -> None:
            while time.monotonic() < ends:
                await here.ask(client)

        await asyncio.gather(*(keep_polling(client) for client in clients))
        print(
            f"{count} clients, {seconds:g} s: {len(here.seconds):,} answers, {here.reads() - before} upstream reads"
        )
    report(here)


async def wait(here: Scene, count: int, seconds: float) -> None:
    bare = here.resident()
    async with here.clients(count) as clients:
        before, idle = here.reads(), here.resident()
        waiting = [asyncio.create_task(here.ask(one, f"prefer: wait={seconds:.0f}")) for one in clients]
        await asyncio.sleep(seconds / 2)
        print(
            f"{count} clients wait: {(here.resident() - idle) / count / 1024:.1f} KiB each, "
            f"{(here.resident() - bare) / count / 1024:.1f} with their connection; "
            f"{here.reads() - before} upstream reads in {seconds / 2:g} s"
        )
        async with httpx.AsyncClient(trust_env=False) as control:
            await control.post(f"{here.sandbox}/sandbox/tasks/{here.task}/end", json={})
        ended = time.monotonic()
        await asyncio.gather(*waiting)
        print(f"all answered {time.monotonic() - ended:.1f} s after the task's end")
    report(here)


def report(here: Scene) -> None:
    times = sorted(here.seconds)
    middle, late = times[len(times) // 2], times[int(len(times) * 0.99)]
    print(f"p50 {middle * 1000:.0f} ms, p99 {late * 1000:.0f} ms; {dict(here.seen)}")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks polls", description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args(arguments)
    with scene() as here:
        asyncio.run(poll(here, options.clients, options.seconds))


def main_waiting(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks waiting", description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args(arguments)
    with scene() as here:
        asyncio.run(wait(here, options.clients, options.seconds))
