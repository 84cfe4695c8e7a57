"""What a run says: JSON with every turn, and markdown with medians, spread, machine and goals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.compare import goals
from benchmarks.compare.bench import Options, Scenario
from benchmarks.compare.results import NOISY, Metric, Results, Row, Spread
from benchmarks.compare.targets import NAMES

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that is told; `took` in seconds."""

    scenarios: Sequence[Scenario]
    results: Results
    options: Options
    machine: Mapping[str, str]
    notes: Sequence[str]
    took: float


def as_json(run: Run) -> str:
    """Every turn of every row, medians and spread beside them; the units are those of the titles."""
    rows = []
    for (scenario, point, target), row in run.results.rows.items():
        keys = list(dict.fromkeys(key for one in row.samples for key in one.values))
        spreads = {key: found for key in keys if (found := row.spread(key))}
        rows.append(
            {
                "scenario": scenario,
                "point": point,
                "target": target,
                "skipped": row.reason,
                "noise": row.noise,
                "noisy": row.noisy,
                "medians": {key: asdict(found) for key, found in spreads.items()},
                "turns": [{**one.values, "noise": one.noise} for one in row.samples],
            }
        )
    titles = {one.name: {metric.key: metric.title for metric in one.metrics} for one in run.scenarios}
    return json.dumps(
        {
            "machine": dict(run.machine),
            "options": asdict(run.options),
            "seconds": run.took,
            "notes": list(run.notes),
            "titles": titles,
            "goals": [asdict(one) for one in goals.judged(run.results)],
            "rows": rows,
        },
        indent=1,
        ensure_ascii=False,
    )


def as_markdown(run: Run) -> str:
    """The report, to be pasted as it is."""
    options = run.options
    method = (
        f"\n{options.rounds} rounds, {options.seconds:g} s a turn, targets taking turns inside every round; "
        f"{run.took / 60:.0f} minutes. Medians, and (least – greatest) of the rounds. `*`: others used more than "
        f"{NOISY:.0%} of the machine in the median turn. CPU is user + system of whole process trees.\n"
    )
    parts = [
        "### Machine and method\n",
        table(["", ""], [[name, value] for name, value in run.machine.items()]),
        method,
        *(f"- {note}" for note in run.notes),
        "\n### Goals beside results\n",
        _goals(run.results),
    ]
    for scenario in run.scenarios:
        if rows := run.results.of(scenario.name):
            parts += [f"\n### {scenario.title}\n", scenario_table(scenario.metrics, rows)]
    return "\n".join(parts) + "\n"


def scenario_table(metrics: Sequence[Metric], rows: Mapping[tuple[str, str], Row]) -> str:
    """A line for each point and target; columns nobody has a value for are left out."""
    used = [one for one in metrics if any(row.spread(one.key) for row in rows.values())]
    points = list(dict.fromkeys(point for point, _ in rows))
    ordered = sorted(rows.items(), key=lambda one: (points.index(one[0][0]), _place(one[0][1])))
    lines = [
        [point, target + (" *" if row.noisy else ""), *_cells(used, row)] for (point, target), row in ordered
    ]
    return table(["", "target", *(one.title for one in used)], lines)


def _place(target: str) -> int:
    """The order of targets; what is none of them stays as it was measured."""
    return NAMES.index(target) if target in NAMES else len(NAMES)


def _cells(metrics: Sequence[Metric], row: Row) -> list[str]:
    if row.reason is not None and not row.samples:
        return [f"{NOTHING} ({row.reason})", *[""] * (len(metrics) - 1)]
    return [shown(row.spread(one.key), one.digits) for one in metrics]


def shown(found: Spread | None, digits: int) -> str:
    """`median (low – high)`, or the median alone when it never moved."""
    if found is None:
        return NOTHING
    median, low, high = (f"{value:,.{digits}f}" for value in (found.median, found.low, found.high))
    return median if low == high else f"{median} ({low} – {high})"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown; bars inside cells are escaped."""
    every = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in every)


def _goals(results: Results) -> str:
    lines = [[one.scenario, one.what, one.goal, one.found, one.verdict] for one in goals.judged(results)]
    return table(["scenario", "what", "goal [stretch]", "found", ""], lines)
