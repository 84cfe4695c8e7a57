"""From starting the process to its first 200 for a caller with a key, and the memory it has then."""

from __future__ import annotations

import compileall
import time
from collections.abc import Callable

import httpx

from benchmarks.compare import product
from benchmarks.compare.bench import Bench, take_turns
from benchmarks.compare.children import ROOT, free_port
from benchmarks.compare.lab import FAST
from benchmarks.compare.paid import PATH, order
from benchmarks.compare.proc import MIB, cpu_seconds, resident
from benchmarks.compare.results import Metric, Sample
from benchmarks.compare.targets import DIRECT, GATEWAY, NAMES, PORTKEY, Target

WITHIN = 30.0  # seconds from readiness to the first 200
PEERS = tuple(name for name in NAMES if name != DIRECT)


class Cold:
    """A new process each round. The gateway's database is migrated and has its teams, as after any restart."""

    name = "cold"
    title = "Cold start to the first 200 (list of models; Portkey: a paid call)"
    metrics = (Metric("seconds", "seconds", 2), Metric("cpu", "CPU seconds", 2), Metric("mib", "MiB then", 0))

    def run(self, bench: Bench) -> None:
        compileall.compile_dir(ROOT / "gateway", quiet=2)  # as those of an installed package are
        starts: dict[str, Callable[[], Target]] = {}
        there = bench.lab.targets(bench.names(PEERS), FAST)  # says which can be had, and makes the teams
        for target in there:
            starts[target.name] = _again(bench, target)

        def turn(target: Target, _: str) -> Sample:
            with bench.lab.measured(target) as spent:
                began = time.perf_counter()
                started = starts[target.name]()
                try:
                    first_answer(started)
                    seconds = time.perf_counter() - began
                    memory, cpu = (
                        (resident(started.pid), cpu_seconds([started.pid])) if started.pid else (0, 0.0)
                    )
                finally:
                    started.stop()
            return Sample({"seconds": seconds, "cpu": cpu, "mib": memory / MIB}, spent.noise)

        take_turns(bench, self.name, ["first 200"], there, turn)


def _again(bench: Bench, target: Target) -> Callable[[], Target]:
    if not isinstance(target, product.Gateway):
        return lambda: bench.lab.target(target.name, FAST)

    def serve() -> Target:
        own = {**target.environment, "GATEWAY_SERVER__PORT": str(free_port())}
        started = product.serve(bench.lab.new_folder(GATEWAY), own)
        started.token = target.token
        return started

    return serve


def first_answer(target: Target) -> None:
    """Asks until there is a 200; RuntimeError when there is none in time."""
    headers = {"authorization": f"Bearer {target.token}", **target.headers}
    deadline = time.monotonic() + WITHIN
    with httpx.Client(base_url=target.base, headers=headers, trust_env=False, timeout=WITHIN) as client:
        while True:
            if target.name == PORTKEY:
                kind = {"content-type": "application/json"}
                answer = client.post(PATH, content=order(), headers=kind)
            else:
                answer = client.get("/v1/models")
            if answer.status_code == 200:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{target.name}: no 200 but {answer.status_code} {answer.text[:200]}")
            time.sleep(0.01)
