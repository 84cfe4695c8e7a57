"""The goals beside what was found: ratios of medians of one run, and a few figures of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.compare.results import Results
from benchmarks.compare.targets import DIRECT, GATEWAY, LITELLM, NGINX, PORTKEY

Value = Callable[[Results], float | None]
NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal as printed: what it is about, what was wanted, what was found, and `met`, `stretch`, `missed` or ``."""

    scenario: str
    what: str
    goal: str
    found: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Goal:
    """`value` has to be at least or at most `bound`; `stretch` is what more would be."""

    scenario: str
    what: str
    side: Literal["≥", "≤"]
    bound: float
    value: Value
    unit: str = ""
    stretch: float | None = None

    def judge(self, results: Results) -> Judged:
        wanted = f"{self.side} {self.bound:g}{self.unit}"
        if self.stretch is not None:
            wanted += f" [{self.stretch:g}]"
        found = self.value(results)
        if found is None:
            return Judged(self.scenario, self.what, wanted, NOT_MEASURED, "")
        verdict = "met" if self._holds(found, self.bound) else "missed"
        if self.stretch is not None and self._holds(found, self.stretch):
            verdict = "stretch"
        return Judged(self.scenario, self.what, wanted, f"{figure(found)}{self.unit}", verdict)

    def _holds(self, found: float, bound: float) -> bool:
        return found >= bound if self.side == "≥" else found <= bound


def figure(value: float) -> str:
    """Three digits that count, never in powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def of(scenario: str, point: str, key: str, target: str = GATEWAY) -> Value:
    """A median."""
    return lambda results: results.median(scenario, point, target, key)


def ratio(above: Value, below: Value) -> Value:
    """None when one of them is missing, or the lower is 0."""

    def value(results: Results) -> float | None:
        upper, lower = above(results), below(results)
        return None if upper is None or not lower else upper / lower

    return value


def added(scenario: str, point: str) -> Value:
    """Milliseconds of p50 above those of the stub itself."""

    def value(results: Results) -> float | None:
        own, direct = of(scenario, point, "p50")(results), of(scenario, point, "p50", DIRECT)(results)
        return None if own is None or direct is None else own - direct

    return value


def both(one: Value, other: Value) -> Value:
    """Their sum."""

    def value(results: Results) -> float | None:
        first, second = one(results), other(results)
        return None if first is None or second is None else first + second

    return value


def against(scenario: str, point: str, key: str, target: str) -> Value:
    """The gateway's median as a multiple of another target's."""
    return ratio(of(scenario, point, key), of(scenario, point, key, target))


def _paid() -> Iterator[Goal]:
    one, many, most = "1 connection", "64 connections", "256 connections"
    rate = of("paid", many, "rate")
    yield Goal(
        "paid", "rate at 64 against Portkey", "≥", 2.0, against("paid", many, "rate", PORTKEY), " ×", 2.8
    )
    yield Goal("paid", "rate at 64 against LiteLLM", "≥", 30, against("paid", many, "rate", LITELLM), " ×")
    yield Goal(
        "paid", "rate at 64 against nginx", "≥", 0.02, against("paid", many, "rate", NGINX), " ×", 0.03
    )
    yield Goal("paid", "gateway CPU a call at 64", "≤", 0.55, of("paid", many, "cpu"), " ms", 0.42)
    servers = both(of("paid", many, "postgres"), of("paid", many, "redis"))
    yield Goal("paid", "Postgres + Redis CPU a call at 64", "≤", 0.30, servers, " ms", 0.20)
    yield Goal("paid", "p50 added at 1 connection", "≤", 3.0, added("paid", one), " ms", 2.0)
    yield Goal("paid", "rate at 256 against 64", "≥", 0.8, ratio(of("paid", most, "rate"), rate), " ×")
    spread = ratio(of("paid", most, "p99"), of("paid", most, "p50"))
    yield Goal("paid", "p99 at 256 against its p50", "≤", 4.0, spread, " ×", 2.0)
    yield Goal("paid", "failed calls at 256", "≤", 0, of("paid", most, "failed"))
    yield Goal("paid", "worker's memory after load", "≤", 120, of("paid", most, "mib"), " MiB", 95)


GOALS: tuple[Goal, ...] = (*_paid(),)


def judged(results: Results) -> list[Judged]:
    """Every goal of a scenario that was run."""
    ran = {scenario for scenario, _, _ in results.rows}
    return [goal.judge(results) for goal in GOALS if goal.scenario in ran]
