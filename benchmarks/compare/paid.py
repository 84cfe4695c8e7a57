"""Paid calls that are answered at once, and those beyond the limit of calls in flight."""

from __future__ import annotations

import asyncio
import json
import random
import time

from benchmarks.compare import bench as running
from benchmarks.compare.bench import LOAD, Bench, load, take_turns
from benchmarks.compare.callers import Caller, Seen, opened, percentile
from benchmarks.compare.lab import BEHAVING, FAST
from benchmarks.compare.nginx import MODEL
from benchmarks.compare.results import Metric, Sample
from benchmarks.compare.targets import GATEWAY, Target
from benchmarks.compare.wrk import Shot

CONNECTIONS = (1, 64, 256)
CALLERS, LIMIT = 256, 100
DELAY, PAUSE = 0.2, 0.5  # seconds an answer takes, and a refused caller waits
PATH = "/v1/images/generations"


def order(prompt: str = "A cup of tea on a table by the window", **fields: object) -> str:
    """The JSON body of a paid call."""
    return json.dumps({"model": MODEL, "prompt": prompt, "n": 1, **fields})


def shot(target: Target, tokens: list[str] | None = None) -> Shot:
    """A paid call by the target's key, or by any of these."""
    headers = {"content-type": "application/json", **target.headers}
    return Shot("POST", [PATH], order(), headers, tokens or [target.token])


class Paid:
    """POST /v1/images/generations with a small answer that is there at once."""

    name = "paid"
    title = "Paid POST, small answer"
    metrics = LOAD

    def run(self, bench: Bench) -> None:
        def turn(target: Target, point: str, seconds: float | None = None) -> Sample:
            return load(bench, target, shot(target), int(point.split()[0]), seconds)

        points = [f"{count} connections" if count > 1 else "1 connection" for count in CONNECTIONS]
        take_turns(
            bench,
            self.name,
            points,
            bench.lab.targets(bench.names(), FAST),
            turn,
            warm=lambda target, point: turn(target, point, running.WARMING),
        )


class Beyond:
    """More callers than `server.max_paid_in_flight` allows: a hundred are served, the others refused at once."""

    name = "beyond"
    title = f"{CALLERS} callers, {LIMIT} calls in flight allowed, answers take {DELAY:g} s"
    metrics = (
        Metric("rate", "answered/s", 0),
        Metric("p50", "answer p50 ms", 1),
        Metric("p99", "answer p99 ms", 1),
        Metric("refusals", "503/s", 0),
        Metric("refused_p50", "503 p50 ms", 2),
        Metric("refused_p99", "503 p99 ms", 2),
        Metric("refused_max", "503 slowest ms", 1),
        Metric("others", "other answers", 0),
    )

    def run(self, bench: Bench) -> None:
        if GATEWAY not in bench.options.targets:
            return
        gateway = bench.lab.gateway(BEHAVING, GATEWAY_SERVER__MAX_PAID_IN_FLIGHT=str(LIMIT))
        try:
            for number in range(bench.options.rounds + 1):
                with bench.lab.measured(gateway) as spent:
                    values = asyncio.run(storm(gateway, max(3.0, bench.options.seconds) if number else 1.0))
                if number:  # the first only warms up
                    bench.add(self.name, f"{CALLERS} callers", gateway, Sample(values, spent.noise))
        finally:
            gateway.stop()


async def storm(target: Target, seconds: float) -> dict[str, float]:
    """All call at once on new connections, and again when answered; a refused one waits first, as SDKs do."""
    callers, seen = await opened(target, CALLERS), list[Seen]()
    ends = time.perf_counter() + seconds

    async def keep_calling(caller: Caller) -> None:
        while time.perf_counter() < ends:
            found = await caller.ask("POST", PATH, order(f"stub:delay={DELAY:g}"))
            seen.append(found)
            if found.status != 200:
                await asyncio.sleep(PAUSE * random.uniform(0.75, 1.25))
        caller.close()

    await asyncio.gather(*(keep_calling(caller) for caller in callers))
    good = [one.seconds * 1000 for one in seen if one.status == 200]
    refused = [one.seconds * 1000 for one in seen if one.status == 503]
    return {
        "rate": len(good) / seconds,
        "p50": percentile(good, 0.5),
        "p99": percentile(good, 0.99),
        "refusals": len(refused) / seconds,
        "refused_p50": percentile(refused, 0.5),
        "refused_p99": percentile(refused, 0.99),
        "refused_max": max(refused, default=0.0),
        "others": float(len(seen) - len(good) - len(refused)),
    }
