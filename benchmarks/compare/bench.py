"""One run: what was asked for, and the loop in which targets take turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from benchmarks.compare import wrk
from benchmarks.compare.lab import Lab
from benchmarks.compare.proc import MIB, resident
from benchmarks.compare.results import Metric, Results, Sample
from benchmarks.compare.targets import GATEWAY, NAMES, CannotError, Target

WARMING = 1.0  # seconds of each target at each point before anything counts
FEW, LONG = 4, 8.0  # calls a connection that are too few to tell anything, and the seconds of a turn then
FAILED = Metric("failed", "failed", 0)
LOAD = (
    Metric("rate", "req/s", 0),
    Metric("p50", "p50 ms", 2),
    Metric("p99", "p99 ms", 2),
    Metric("cpu", "CPU ms a call", 3),
    Metric("postgres", "Postgres CPU ms", 3),
    Metric("redis", "Redis CPU ms", 3),
    Metric("mib", "MiB after", 0),
    FAILED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How long: rounds, seconds of one turn, seconds that calls are held, and waiting clients."""

    rounds: int = 3
    seconds: float = 2.0
    hold: float = 20.0
    held: int = 1000
    clients: int = 10_000
    targets: tuple[str, ...] = NAMES


@dataclass(slots=True)
class Bench:
    """A lab with what is wanted of it and what was found."""

    lab: Lab
    options: Options
    said: Callable[[str], None]
    results: Results = field(default_factory=Results)
    notes: list[str] = field(default_factory=list)
    windows: dict[tuple[str, str, str, int], float] = field(default_factory=dict)  # seconds of slow turns

    def note(self, text: str) -> None:
        """Something the reader of the report has to know."""
        self.said(f"NOTE {text}")
        self.notes.append(text)

    def add(self, scenario: str, point: str, target: Target, sample: Sample) -> None:
        """One turn has been measured."""
        self.results.add(scenario, point, target.name, sample)
        values = (
            f"{key} {value:,.3g}" if value < 1000 else f"{key} {value:,.0f}"
            for key, value in sample.values.items()
        )
        self.said(f"{scenario} · {point} · {target.name}: {', '.join(values)} (others {sample.noise:.0%})")

    def names(self, allowed: Sequence[str] = NAMES) -> list[str]:
        """The targets asked for that this scenario has a use for."""
        return [name for name in self.options.targets if name in allowed]


class Scenario(Protocol):
    """Something to measure: what it is called, what its columns are, and how it is run."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def metrics(self) -> Sequence[Metric]: ...

    def run(self, bench: Bench) -> None: ...


Turn = Callable[[Target, str], Sample]


def take_turns(
    bench: Bench,
    scenario: str,
    points: Sequence[str],
    targets: Sequence[Target],
    turn: Turn,
    rounds: int | None = None,
    warm: Callable[[Target, str], object] | None = None,
) -> None:
    """Every target at every point, one after the other, and that again every round; `warm` comes before the first.

    A target that can do nothing of it is left out from then on, and why.
    """
    for number in range(-1 if warm else 0, rounds or bench.options.rounds):
        for point in points:
            for target in targets:
                if bench.results.skipped(scenario, point, target.name):
                    continue
                try:
                    if number >= 0:
                        bench.add(scenario, point, target, turn(target, point))
                    elif warm:
                        warm(target, point)
                except CannotError as error:
                    bench.said(f"SKIPPED {target.name} in {scenario} · {point}: {error}")
                    bench.results.skip(scenario, point, target.name, str(error))


def load(
    bench: Bench, target: Target, shot: wrk.Shot, connections: int, seconds: float | None = None
) -> Sample:
    """One turn of wrk, with what it cost the target and its servers; times in milliseconds.

    Where few calls end in the time asked for, that and later turns like it take longer. CannotError when all fail.
    """
    turn = (target.name, shot.method, shot.paths[0], connections)
    wanted = bench.windows.get(turn, seconds or bench.options.seconds)
    with bench.lab.measured(target) as spent:
        found = wrk.run(target.base, shot, connections, wanted, bench.lab.folder)
    if found.calls + found.failed < FEW * connections and wanted < LONG:
        bench.windows[turn] = LONG
        return load(bench, target, shot, connections)
    if found.failed and not found.calls:
        raise CannotError(f"answers {probe(target, shot)}")
    values = {"failed": float(found.failed)}
    if found.calls:
        values |= {"rate": found.rate, "p50": found.p50, "p99": found.p99}
    if target.pid is not None and found.calls:
        values["cpu"] = spent.target / found.calls * 1000
        values["mib"] = resident(target.pid) / MIB
        if target.name == GATEWAY:
            values["postgres"] = spent.postgres / found.calls * 1000
            values["redis"] = spent.redis / found.calls * 1000
    return Sample(values, spent.noise)


def probe(target: Target, shot: wrk.Shot) -> str:
    """The status of one such call, or what went wrong."""
    headers = {**shot.headers, "authorization": f"Bearer {shot.tokens[0]}"} if shot.tokens else shot.headers
    try:
        address = target.base + shot.paths[0]
        answer = httpx.request(
            shot.method, address, content=shot.body, headers=headers, timeout=wrk.TIMEOUT, trust_env=False
        )
    except httpx.TransportError as error:
        return type(error).__name__
    return str(answer.status_code)
