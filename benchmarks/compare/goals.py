"""The goals beside what was found: ratios of medians of one run, and a few figures of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.compare.bodies import EIGHT, ONE
from benchmarks.compare.money import BATCHED, FIFTY_TEAMS, ONE_TEAM, SINGLE
from benchmarks.compare.reads import HOT, HOT_ONE, MANY, MODELS
from benchmarks.compare.results import Results
from benchmarks.compare.targets import DIRECT, GATEWAY, LITELLM, NGINX, PORTKEY
from benchmarks.compare.tenants import POINTS as KEYS
from benchmarks.ledger import GROUPED

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


def minus(one: Value, other: Value) -> Value:
    """Their difference."""

    def value(results: Results) -> float | None:
        first, second = one(results), other(results)
        return None if first is None or second is None else first - second

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


def _reads() -> Iterator[Goal]:
    hot = of("polls", HOT, "rate")
    yield Goal(
        "polls", "hot task at 64 against nginx", "≥", 0.10, against("polls", HOT, "rate", NGINX), " ×", 0.20
    )
    yield Goal(
        "polls", "hot task at 64 against LiteLLM", "≥", 150, against("polls", HOT, "rate", LITELLM), " ×"
    )
    many = ratio(of("polls", MANY, "rate"), hot)
    yield Goal("polls", "1,000 tasks against the hot one", "≥", 0.85, many, " ×", 0.95)
    yield Goal("polls", "p50 added at 1 connection", "≤", 0.5, added("polls", HOT_ONE), " ms", 0.25)
    models = against("models", MODELS, "rate", NGINX)
    yield Goal("models", "rate at 64 against nginx", "≥", 0.10, models, " ×", 0.20)
    yield Goal(
        "models", "rate at 64 against LiteLLM", "≥", 60, against("models", MODELS, "rate", LITELLM), " ×"
    )


def _large() -> Iterator[Goal]:
    for scenario, one, stretches in (("answers", 0.35, (0.5, 0.4)), ("edits", 0.40, (0.5, 0.5))):
        for point, stretch, growth, less in ((ONE, stretches[0], 8, 4), (EIGHT, stretches[1], 32, 16)):
            speed = against(scenario, point, "rate", NGINX)
            yield Goal(scenario, f"{point}: MB/s against nginx", "≥", one, speed, " ×", stretch)
            yield Goal(
                scenario, f"{point}: memory growth", "≤", growth, of(scenario, point, "growth"), " MiB", less
            )
    for peer, at_least in ((PORTKEY, 5), (LITELLM, 5)):
        speed = against("answers", ONE, "rate", peer)
        yield Goal("answers", f"one: MB/s against {peer}", "≥", at_least, speed, " ×")
    yield Goal("edits", "one: MB/s against litellm", "≥", 1.2, against("edits", ONE, "rate", LITELLM), " ×")


def _held() -> Iterator[Goal]:
    def first(scenario: str, key: str) -> Value:
        """At whichever point the scenario was run: its name tells how many there were."""

        def value(results: Results) -> float | None:
            points = [point for point, target in results.of(scenario) if target == GATEWAY]
            return results.median(scenario, points[0], GATEWAY, key) if points else None

        return value

    yield Goal("held", "calls without an answer", "≤", 0, first("held", "failed"))
    yield Goal("held", "memory a held call", "≤", 45, first("held", "kib"), " KiB", 32)
    yield Goal("held", "last answer late", "≤", 1, first("held", "late"), " s")
    yield Goal("held", "p99 of polls meanwhile", "≤", 20, first("held", "p99"), " ms", 8)
    yield Goal("held", "Postgres connections held", "≤", 0, first("held", "connections"))
    yield Goal("beyond", "slowest 503", "≤", 50, first("beyond", "refused_max"), " ms")
    yield Goal("beyond", "p99 of 503", "≤", 50, first("beyond", "refused_p99"), " ms")
    yield Goal("waiting", "memory a waiting client", "≤", 30, first("waiting", "kib"), " KiB")
    yield Goal("waiting", "clients not told of the end", "≤", 0, first("waiting", "failed"))


def _rest() -> Iterator[Goal]:
    cold = of("cold", "first 200", "seconds")
    yield Goal("cold", "to the first authenticated 200", "≤", 1.5, cold, " s", 0.9)
    litellm = against("cold", "first 200", "seconds", LITELLM)
    yield Goal("cold", "against LiteLLM", "≤", 0.15, litellm, " ×")
    few, many, most = KEYS
    rate = of("keys", few, "rate")
    yield Goal("keys", f"rate with {many}", "≥", 0.85, ratio(of("keys", many, "rate"), rate), " ×", 0.95)
    yield Goal("keys", f"rate with {most}", "≥", 0.6, ratio(of("keys", most, "rate"), rate), " ×", 0.8)
    growth = minus(of("keys", most, "mib"), of("keys", few, "mib"))
    yield Goal("keys", f"memory with {most} more than with 10", "≤", 64, growth, " MiB")
    hot = ratio(of("teams", ONE_TEAM, "rate"), of("teams", FIFTY_TEAMS, "rate"))
    yield Goal("teams", "one hot team against fifty", "≥", 0.9, hot, " ×")
    alone = of("ledger", ONE_TEAM, "rate", GROUPED)
    single = ratio(alone, of("ledger", ONE_TEAM, "rate", SINGLE))
    batched = ratio(alone, of("ledger", ONE_TEAM, "rate", BATCHED))
    yield Goal("ledger", "one team, against pgbench one a commit", "≥", 4, single, " ×")
    yield Goal("ledger", "one team, against pgbench 64 a commit", "≥", 0.35, batched, " ×", 0.5)
    fifty = ratio(alone, of("ledger", FIFTY_TEAMS, "rate", GROUPED))
    yield Goal("ledger", "one hot team against fifty", "≥", 0.9, fifty, " ×")
    yield Goal("ledger", "hold p99 at 64 callers", "≤", 10, of("ledger", ONE_TEAM, "p99", GROUPED), " ms", 4)


GOALS: tuple[Goal, ...] = (*_paid(), *_reads(), *_rest(), *_held(), *_large())


def judged(results: Results) -> list[Judged]:
    """Every goal of a scenario that was run."""
    ran = {scenario for scenario, _, _ in results.rows}
    return [goal.judge(results) for goal in GOALS if goal.scenario in ran]
