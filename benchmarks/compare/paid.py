"""Paid calls that are answered at once, and those beyond the limit of calls in flight."""

from __future__ import annotations

import json

from benchmarks.compare import bench as running
from benchmarks.compare.bench import LOAD, Bench, load, take_turns
from benchmarks.compare.lab import FAST
from benchmarks.compare.nginx import MODEL
from benchmarks.compare.results import Sample
from benchmarks.compare.targets import Target
from benchmarks.compare.wrk import Shot

CONNECTIONS = (1, 64, 256)
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
        with bench.lab.targets(bench.names(), FAST) as targets:
            take_turns(
                bench,
                self.name,
                points,
                targets,
                turn,
                warm=lambda target, point: turn(target, point, running.WARMING),
            )
