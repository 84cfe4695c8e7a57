"""A thousand paid calls that take long: what each costs in memory, how polls fare, what Postgres holds meanwhile."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.compare.bench import FAILED, Bench
from benchmarks.compare.callers import Caller, opened, percentile
from benchmarks.compare.lab import BEHAVING
from benchmarks.compare.paid import PATH, order
from benchmarks.compare.proc import KIB, resident
from benchmarks.compare.product import Gateway
from benchmarks.compare.reads import finished
from benchmarks.compare.results import Metric, Sample
from benchmarks.compare.targets import PORTKEY, Target

WARMING_CALLS, WARMING_SECONDS = 100, 0.5
REASON = re.compile(rb'"reason": ?"([a-z_]+)"')
POLL_EVERY = 0.01  # seconds
LONG_TRANSACTION = "1 second"
_HELD_CONNECTIONS = f"""
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
      AND xact_start < now() - interval '{LONG_TRANSACTION}'
"""


@dataclass
class Meanwhile:
    """What was seen while the calls were held: seconds of polls, memory in bytes, connections inside a transaction."""

    polls: list[float] = field(default_factory=list)
    resident: int = 0
    connections: int = 0


class Held:
    """Paid calls whose answer takes 20 s."""

    name = "held"
    title = "1,000 paid calls held 20 s"
    metrics = (
        Metric("answered", "answered", 0),
        Metric("kib", "KiB a held call", 1),
        Metric("late", "last answer late, s", 2),
        Metric("p50", "poll p50 ms meanwhile", 2),
        Metric("p99", "poll p99 ms meanwhile", 2),
        Metric("connections", "Postgres connections held", 0),
        FAILED,
    )

    def run(self, bench: Bench) -> None:
        count, seconds = bench.options.held, bench.options.hold
        point = f"{count:,} calls, {seconds:g} s"
        for target in bench.lab.targets(bench.names(), BEHAVING):
            with bench.lab.measured(target) as spent:
                values, failures = asyncio.run(hold(target, count, seconds))
            if failures:
                bench.note(f"held: {target.name} did not answer every call with 200: {dict(failures)}")
            bench.add(self.name, point, target, Sample(values, spent.noise))


async def hold(target: Target, count: int, seconds: float) -> tuple[dict[str, float], Counter[str]]:
    """Holds so many calls for so long, after a warming with fewer; the values of one row, and what failed how."""
    task = (await finished(target, 1))[0]
    callers = await opened(target, WARMING_CALLS)
    await asyncio.gather(*(_paid(caller, WARMING_SECONDS) for caller in callers))
    _close(callers)
    await asyncio.sleep(0.5)
    before, seen = _memory(target), Meanwhile()
    began = time.perf_counter()
    callers = await opened(target, count)
    watching = asyncio.create_task(_watch(target, task, seen, began + seconds / 2))
    answers = await asyncio.gather(*(_paid(caller, seconds) for caller in callers))
    late = time.perf_counter() - began - seconds
    failures = Counter(one for one in answers if one)
    watching.cancel()
    for error in await asyncio.gather(watching, return_exceptions=True):
        if isinstance(error, Exception):
            failures[f"polls: {error!r}"] = 0
    _close(callers)
    values = {
        "answered": float(count - failures.total()),
        "failed": float(failures.total()),
        "late": late,
    }
    if target.pid is not None:
        values["kib"] = (seen.resident - before) / count / KIB
    if seen.polls:
        values |= {"p50": percentile(seen.polls, 0.5) * 1000, "p99": percentile(seen.polls, 0.99) * 1000}
    if isinstance(target, Gateway):
        values["connections"] = float(seen.connections)
    return values, failures


async def _paid(caller: Caller, seconds: float) -> str:
    """Nothing when the answer was a 200, else what came."""
    try:
        seen = await caller.ask("POST", PATH, order(f"stub:delay={seconds:g}"))
    except (OSError, asyncio.IncompleteReadError) as error:
        return type(error).__name__
    reason = REASON.search(seen.body)
    return "" if seen.status == 200 else f"{seen.status} {reason[1].decode() if reason else ''}".strip()


async def _watch(target: Target, task: str, seen: Meanwhile, middle: float) -> None:
    """Polls all the time, from the moment on when the calls should be on their way; in the middle memory is read."""
    await asyncio.sleep(1.0)
    poller = None if target.name == PORTKEY else Caller(target)
    if poller is not None:
        await poller.open()
    while True:
        if poller is not None:
            seen.polls.append((await poller.ask("GET", f"/v1/tasks/{task}")).seconds)
        if not seen.resident and time.perf_counter() > middle:
            seen.resident = _memory(target)
            if isinstance(target, Gateway):
                seen.connections = await asyncio.to_thread(_held_connections, target)
        await asyncio.sleep(POLL_EVERY)


def _held_connections(gateway: Gateway) -> int:
    """Connections of the gateway that have been inside a transaction for a second."""
    with gateway.connect() as connection:
        row = connection.execute(_HELD_CONNECTIONS.encode()).fetchone()
        return 0 if row is None else int(row[0])


def _memory(target: Target) -> int:
    return 0 if target.pid is None else resident(target.pid)


def _close(callers: list[Caller]) -> None:
    for caller in callers:
        caller.close()
