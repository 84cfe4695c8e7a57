"""`python -m benchmarks profile`: where the gateway's CPU goes in the paid call at 64 connections, room by room.

Samples of the stack by CPU time (benchmarks/compare/sampling.py). A room has what the libraries it calls cost; the
second table says which package the time was in. Shares tell where to look; ms a call also hold the sampler's own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.compare import product, wrk
from benchmarks.compare.lab import FAST, Lab, lab
from benchmarks.compare.paid import shot
from benchmarks.compare.report import table
from benchmarks.compare.sampling import OWN

WARMING = 3.0  # seconds
WRITTEN_WITHIN = 10.0
LEAST = 0.005  # of all samples: what is less is summed
Counts = Mapping[tuple[str, str], int]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks profile", description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--modules", action="store_true", help="modules instead of rooms")
    options = parser.parse_args(arguments)
    with lab(print) as own:
        print(profile(own, options.connections, options.seconds, 3 if options.modules else 2))


def profile(own: Lab, connections: int, seconds: float, depth: int) -> str:
    """Two tables in markdown; `depth` is how many parts of a module's name a room has."""
    folder = own.new_folder("profile")
    output = folder / "samples.json"
    module = ("-m", "benchmarks.compare.sampling", str(output))
    gateway = product.start(folder, own.urls(), own.stub(FAST), module=module)
    assert gateway.pid is not None
    try:
        wrk.run(gateway.base, shot(gateway), connections, WARMING, own.folder)
        os.kill(gateway.pid, signal.SIGUSR1)
        with own.measured(gateway) as spent:
            found = wrk.run(gateway.base, shot(gateway), connections, seconds, own.folder)
        os.kill(gateway.pid, signal.SIGUSR1)
        counts = _read(output)
    finally:
        gateway.stop()
    cpu = spent.target / max(1, found.calls) * 1000
    head = (
        f"{connections} connections, {found.rate:,.0f} req/s, {cpu:.2f} ms of CPU a call with the sampler; "
        f"{sum(counts.values()):,} samples; others used {spent.noise:.0%} of the machine"
    )
    return f"\n{head}\n\n{shares('room', rooms(counts, depth), cpu)}\n\n{shares('package', packages(counts), cpu)}"


def _read(output: Path) -> Counts:
    deadline = time.monotonic() + WRITTEN_WITHIN
    while not output.exists():
        if time.monotonic() > deadline:
            raise RuntimeError("the gateway wrote no samples")
        time.sleep(0.05)
    return {(own, package): count for own, package, count in json.loads(output.read_text())}


def rooms(counts: Counts, depth: int) -> Counter[str]:
    """Samples by the innermost room of the gateway in the stack; without one (loops, greenlets) by package."""
    found: Counter[str] = Counter()
    for (own, package), count in counts.items():
        found[".".join(own.split(".")[:depth]) if own else f"– {package}"] += count
    return found


def packages(counts: Counts) -> Counter[str]:
    """Samples by the package whose frame was innermost."""
    found: Counter[str] = Counter()
    for (_, package), count in counts.items():
        found[package if package != OWN else f"{OWN} itself"] += count
    return found


def shares(title: str, counts: Counter[str], cpu: float) -> str:
    """A table of shares, greatest first; `cpu` is milliseconds a call."""
    total = sum(counts.values()) or 1
    lines, rest = [], 0
    for name, count in counts.most_common():
        if count < LEAST * total:
            rest += count
            continue
        lines.append([name, f"{count / total:.1%}", f"{count / total * cpu:.3f}"])
    if rest:
        lines.append(["(less than half a percent each)", f"{rest / total:.1%}", f"{rest / total * cpu:.3f}"])
    return table([title, "share", "ms a call"], lines)
