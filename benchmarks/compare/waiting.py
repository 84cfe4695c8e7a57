"""Ten thousand clients that wait for unfinished tasks with `Prefer: wait`: what each costs in memory."""

from __future__ import annotations

import asyncio
import json
import time

from benchmarks.compare.bench import FAILED, Bench
from benchmarks.compare.callers import Caller, opened
from benchmarks.compare.lab import BEHAVING
from benchmarks.compare.machine import raise_file_limit
from benchmarks.compare.proc import KIB, resident
from benchmarks.compare.reads import submitted
from benchmarks.compare.results import Metric, Sample
from benchmarks.compare.targets import GATEWAY, Target

TASKS = 50
WAIT = 60  # seconds, the longest there is
SETTLED = 8.0  # seconds after the last has asked until memory is read
WARMING = 500
SPARE_FILES = 600


class Waiting:
    """Clients with a connection each, spread over fifty running tasks; then the tasks end."""

    name = "waiting"
    title = "Clients waiting with Prefer: wait"
    metrics = (
        Metric("clients", "clients", 0),
        Metric("kib", "KiB a client, with its connection", 1),
        Metric("waiting", "KiB of it for waiting", 1),
        Metric("answered", "told of the end", 0),
        Metric("after", "last answer after the end, s", 2),
        FAILED,
    )

    def run(self, bench: Bench) -> None:
        if GATEWAY not in bench.options.targets:
            return
        count = min(bench.options.clients, raise_file_limit() - SPARE_FILES)
        if count < bench.options.clients:
            bench.note(
                f"waiting: {count:,} clients and not {bench.options.clients:,}, for the limit of open files is low"
            )
        gateway = bench.lab.gateway(BEHAVING)
        stub = Target(name="stub", base=f"http://127.0.0.1:{bench.lab.stub(BEHAVING)}")
        try:
            with bench.lab.measured(gateway) as spent:
                values = asyncio.run(wait(gateway, stub, count))
            bench.add(self.name, f"{count:,} clients", gateway, Sample(values, spent.noise))
        finally:
            gateway.stop()


async def wait(gateway: Target, stub: Target, count: int) -> dict[str, float]:
    """Has so many clients wait until all tasks end; the values of one row."""
    assert gateway.pid is not None
    tasks = await submitted(gateway, TASKS, "stub:run=1")
    control = (await opened(stub, 1))[0]
    some = await opened(gateway, WARMING)
    await asyncio.gather(*(_ask(one, tasks[n % TASKS], 1) for n, one in enumerate(some)))
    for one in some:
        one.close()
    await asyncio.sleep(1.0)
    bare = resident(gateway.pid)
    clients = await opened(gateway, count)
    connected = resident(gateway.pid)
    asking = [asyncio.create_task(_ask(one, tasks[n % TASKS], WAIT)) for n, one in enumerate(clients)]
    await asyncio.sleep(SETTLED)
    waited = resident(gateway.pid)
    early = sum(one.done() for one in asking)
    await control.ask("POST", "/stub/end", "{}")
    ended = time.perf_counter()
    statuses = await asyncio.gather(*asking)
    after = time.perf_counter() - ended
    for one in [control, *clients]:
        one.close()
    good = statuses.count("completed")
    return {
        "clients": float(count),
        "kib": (waited - bare) / count / KIB,
        "waiting": (waited - connected) / count / KIB,
        "answered": float(good),
        "after": after,
        "failed": float(count - good + early),
    }


async def _ask(client: Caller, task: str, seconds: int) -> str:
    """The task's status when there was an answer, or what went wrong."""
    try:
        seen = await client.ask("GET", f"/v1/tasks/{task}", headers={"prefer": f"wait={seconds}"})
    except (OSError, asyncio.IncompleteReadError) as error:
        return type(error).__name__
    return str(json.loads(seen.body).get("status", seen.status))
