"""`python -m benchmarks compare`: the gateway with everything on, beside nginx, Portkey and LiteLLM, in one run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compare import machine, peers, report
from benchmarks.compare.bench import Bench, Options, Scenario
from benchmarks.compare.bodies import Answers, Edits
from benchmarks.compare.cold import Cold
from benchmarks.compare.held import Held
from benchmarks.compare.lab import lab
from benchmarks.compare.money import Money
from benchmarks.compare.paid import Beyond, Paid
from benchmarks.compare.reads import Models, Polls
from benchmarks.compare.targets import NAMES
from benchmarks.compare.tenants import Keys, Teams
from benchmarks.compare.waiting import Waiting

# Those with the same stub together, for their targets run on; where memory is asked for, the smaller bodies first.
SCENARIOS: tuple[Scenario, ...] = (
    Paid(),
    Polls(),
    Models(),
    Teams(),
    Cold(),
    Keys(),
    Money(),
    Held(),
    Edits(),
    Answers(),
    Beyond(),
    Waiting(),
)


def main(arguments: Sequence[str]) -> None:
    plain, known = Options(), {one.name: one for one in SCENARIOS}
    listed = "; ".join(f"{one.name}: {one.title}" for one in SCENARIOS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare", description=__doc__, epilog=f"Scenarios: {listed}."
    )
    parser.add_argument("scenarios", nargs="*", help="default: all")
    parser.add_argument("--targets", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--rounds", type=int, default=plain.rounds)
    parser.add_argument("--seconds", type=float, default=plain.seconds, help="of one turn; wrk rounds it up")
    parser.add_argument("--hold", type=float, default=plain.hold, help="seconds that calls are held")
    parser.add_argument("--held", type=int, default=plain.held, help="calls held at once")
    parser.add_argument("--clients", type=int, default=plain.clients, help="that wait with Prefer: wait")
    parser.add_argument(
        "--install", action="store_true", help="Portkey and LiteLLM into the cache folder first"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench"), help="folder of bench.json and bench.md"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.scenarios if name not in known]:
        parser.error(f"no such scenario: {', '.join(unknown)} (there are {', '.join(known)})")
    if options.install:
        peers.install()
    wanted = Options(
        rounds=options.rounds,
        seconds=options.seconds,
        hold=options.hold,
        held=options.held,
        clients=options.clients,
        targets=tuple(name for name in NAMES if name in options.targets),
    )
    chosen = [one for one in SCENARIOS if not options.scenarios or one.name in options.scenarios]
    measure(chosen, wanted, options.out)


def measure(scenarios: Sequence[Scenario], options: Options, out: Path) -> None:
    """Runs the scenarios and writes the report after each, so that a run cut short has left what it found."""
    began = time.monotonic()
    machine.raise_file_limit()
    skipped: list[str] = []

    def said(text: str) -> None:
        print(text, flush=True)
        if text.startswith("SKIPPED"):
            skipped.append(text)

    out.mkdir(parents=True, exist_ok=True)
    with lab(said) as own:
        bench = Bench(own, options, said)
        facts = machine.facts(own.postgres_version())
        text = ""
        for scenario in scenarios:
            said(f"— {scenario.title}")
            scenario.run(bench)
            took = time.monotonic() - began
            run = report.Run(scenarios, bench.results, options, facts, [*skipped, *bench.notes], took)
            (out / "bench.json").write_text(report.as_json(run))
            text = report.as_markdown(run)
            (out / "bench.md").write_text(text)
        print(f"\n{text}\nWritten: {out / 'bench.md'}, {out / 'bench.json'}")
