"""Two gateway processes behind a balancer are replaced one after the other, under traffic: no client notices."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from gateway.background import cancel
from tests.e2e import harness
from tests.e2e.data_plane.rig import ASYNC, MICRO, SYNC, Rig, caller, order, rig
from tests.e2e.harness import Process, eventually

READY_EVERY = 0.1
DRAINED_WITHIN = 10.0
PATIENCE = aiohttp.ClientTimeout(30)
SETTINGS = {
    "GATEWAY_SERVER__DRAIN_SECONDS": "20",
    # Longer than the balancer takes to notice, so that nobody asks a process that is about to be gone.
    "GATEWAY_SERVER__DRAIN_MIN_SECONDS": "1",
}

pytestmark = pytest.mark.skipif(
    "PXG_CHAOS_SEEDS" not in os.environ, reason="a rolling restart is tried by: make chaos"
)


class Balancer:
    """Round robin over the processes that say they are ready.

    What a process refuses with a 503 that may be repeated, or by refusing the connection, goes to the next one. A
    connection that breaks later is the client's loss: a paid call may have been sent.
    """

    def __init__(self, bases: list[str], session: aiohttp.ClientSession) -> None:
        self.bases = bases
        self.ready: list[str] = []
        self.tried_again = 0
        self._session = session
        self._turn = itertools.count()

    async def look(self) -> None:
        """Asks every process again and again whether it is ready."""
        while True:
            self.ready = [base for base in self.bases if await self._is_ready(base)]
            await asyncio.sleep(READY_EVERY)

    async def _is_ready(self, base: str) -> bool:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with self._session.get(f"{base}/readyz") as answer:
                return answer.status == 200
        return False

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        turn, ready = next(self._turn), list(self.ready)
        answer = web.Response(status=504)
        for number in range(len(ready)):
            base = ready[(turn + number) % len(ready)]
            try:
                answer = await self._forward(base, request, body)
            except aiohttp.ClientConnectorError:
                self.tried_again += 1
                continue
            if answer.status != 503 or answer.headers.get("x-should-retry") != "true":
                break
            self.tried_again += 1
        return answer

    async def _forward(self, base: str, request: web.Request, body: bytes) -> web.Response:
        names = ("authorization", "content-type", "x-request-id")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        async with self._session.request(
            request.method, f"{base}{request.path}", data=body or None, headers=headers
        ) as answer:
            kept = {name: answer.headers[name] for name in ("x-should-retry",) if name in answer.headers}
            return web.Response(
                status=answer.status, body=await answer.read(), headers=kept, content_type="application/json"
            )


@contextlib.asynccontextmanager
async def balanced(bases: list[str]) -> AsyncIterator[tuple[Balancer, str]]:
    """A balancer before these processes, and its address."""
    async with aiohttp.ClientSession(timeout=PATIENCE) as session:
        balancer = Balancer(bases, session)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", balancer.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        looking = asyncio.create_task(balancer.look())
        try:
            await all_ready(balancer)
            yield balancer, f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await cancel([looking])
            await runner.cleanup()


@dataclass
class Traffic:
    """Clients of the balancer that order and poll until told to stop, and what they were told."""

    base: str
    session: aiohttp.ClientSession
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    paid: list[str] = field(default_factory=list)  # request ids
    tasks: list[str] = field(default_factory=list)
    stopped: bool = False

    async def order(self, path: str, fault: str) -> None:
        while not self.stopped:
            ident = f"rolling-{len(self.paid)}"
            self.paid.append(ident)
            # No two alike: equal orders might be taken for one that is repeated.
            document = order(f"Cup {ident} [fault:{fault}]")
            headers = {"x-request-id": ident}
            async with self.session.post(f"{self.base}{path}", json=document, headers=headers) as answer:
                await self._note(path, answer)
                if answer.ok and path == ASYNC:
                    self.tasks.append((await answer.json())["id"])

    async def poll(self) -> None:
        for number in itertools.count():
            if self.stopped:
                return
            if not self.tasks:
                await asyncio.sleep(0.05)
                continue
            task = self.tasks[-1 - number % min(5, len(self.tasks))]
            async with self.session.get(f"{self.base}/v1/tasks/{task}") as answer:
                await self._note("poll", answer)
            await asyncio.sleep(0.02)

    async def _note(self, path: str, answer: aiohttp.ClientResponse) -> None:
        self.statuses[path, answer.status] += 1
        if not answer.ok:
            self.refused.append(f"{path} {answer.status} {await answer.text()}")


@contextlib.asynccontextmanager
async def traffic(base: str, key: str) -> AsyncIterator[Traffic]:
    """Steady traffic until the block ends; what breaks a client's connection breaks the test."""
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers, timeout=PATIENCE) as session:
        found = Traffic(base, session)
        async with asyncio.TaskGroup() as clients:
            for path, fault in ((SYNC, "delay=0.1"), (SYNC, "delay=0.1"), (SYNC, "delay=1.5")):
                clients.create_task(found.order(path, fault))
            clients.create_task(found.order(ASYNC, "delay=0.3"))
            for _ in range(2):
                clients.create_task(found.poll())
            try:
                yield found
            finally:
                found.stopped = True


@pytest.fixture
def one(database_url: str, redis_url: str) -> Iterator[Rig]:
    with rig(database_url, redis_url, SETTINGS) as found:
        limits = {"requests_per_minute": 100_000}
        found.gateway.call("PATCH", f"/teams/{found.team}", json=limits)
        yield found


async def test_rolling_restart_is_seen_by_no_client(one: Rig) -> None:
    first = one.gateway.process
    with contextlib.ExitStack() as processes:

        def start() -> Process:
            return processes.enter_context(harness.beside(one.gateway.environment))

        second = await asyncio.to_thread(start)
        async with (
            balanced([first.base, second.base]) as (balancer, address),
            traffic(address, one.key) as seen,
        ):
            replacements = []
            for old, ending in ((first, signal.SIGTERM), (second, signal.SIGHUP)):
                await more_of(seen)
                assert await asyncio.to_thread(old.stop, ending) == 0, old.text()[-2000:]
                await more_of(seen)
                new = await asyncio.to_thread(start)
                replacements.append(new)
                balancer.bases = [base for base in balancer.bases if base != old.base] + [new.base]
                await all_ready(balancer)
            await more_of(seen)
        one.gateway.admin.base_url = replacements[0].base
        assert not seen.refused, seen.refused[:3]
        assert {status for _, status in seen.statuses} == {200}
        await asyncio.to_thread(executed_once_each, one, seen)
        print(f"{seen.statuses}, tried again by the balancer: {balancer.tried_again}")
        for new in replacements:
            assert await asyncio.to_thread(new.stop) == 0


def test_a_terminal_that_closes_drains_the_workers(one: Rig) -> None:
    ident = "hung-up"
    with (
        harness.beside(one.gateway.environment | {"GATEWAY_SERVER__WORKERS": "2"}) as process,
        caller(process.base, one.key) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        call = threads.submit(
            client.post, SYNC, json=order("[fault:delay=1]"), headers={"x-request-id": ident}
        )
        eventually(lambda: one.sent(ident))
        # It tells every process, and the shell may tell them once more.
        for _ in range(2):
            for number in [process.child.pid, *children(process)]:
                os.kill(number, signal.SIGHUP)
        assert call.result().status_code == 200
        assert process.child.wait(harness.STOP_SECONDS) == 0, process.text()[-2000:]
    assert one.held(ident).state == "settled"


def children(process: Process) -> list[int]:
    number = process.child.pid
    return [int(one) for one in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


async def all_ready(balancer: Balancer) -> None:
    async with asyncio.timeout(DRAINED_WITHIN):
        while balancer.ready != balancer.bases:
            await asyncio.sleep(0.02)


async def more_of(seen: Traffic) -> None:
    """Waits for some traffic of each kind."""
    before = seen.statuses.copy()
    async with asyncio.timeout(DRAINED_WITHIN):
        while any(seen.statuses[kind, 200] < before[kind, 200] + 3 for kind in (SYNC, ASYNC, "poll")):
            await asyncio.sleep(0.02)


def executed_once_each(one: Rig, seen: Traffic) -> None:
    """Every order has one hold, settled at its price, and one execution; and the books are in order."""
    assert one.sandbox.counters(one.secret)["executions"] == len(seen.paid)
    wanted = dict.fromkeys(seen.paid, ("settled", 2 * MICRO))

    def concluded() -> bool:
        rows = one.rows("SELECT request_id, state, settled FROM holds")
        assert len(rows) == len(seen.paid)
        return {row["request_id"]: (row["state"], row["settled"]) for row in rows} == wanted

    eventually(concluded, 30, every=0.2)
    proof = one.gateway.call("GET", "/ledger/verify")
    assert proof["ok"], proof
