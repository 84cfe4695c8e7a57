"""The report of a run whose figures are known."""

from __future__ import annotations

import json

from benchmarks.compare.bench import Options
from benchmarks.compare.goals import Goal, figure, judged, of, ratio
from benchmarks.compare.paid import Paid
from benchmarks.compare.report import Run, as_json, as_markdown, scenario_table, shown, table
from benchmarks.compare.results import Metric, Results, Sample, Spread

MANY = "64 connections"


def run() -> Run:
    results = Results()
    for rate in (1900.0, 2000.0, 2200.0):
        results.add("paid", MANY, "gateway", Sample({"rate": rate, "cpu": 0.4}, 0.5))
    results.add("paid", MANY, "portkey", Sample({"rate": 800.0}))
    results.skip("paid", MANY, "litellm", "no | answer")
    return Run([Paid()], results, Options(), {"cores": "2"}, ["SKIPPED nginx: missing"], 90.0)


def test_shown() -> None:
    assert shown(None, 1) == "–"
    assert shown(Spread(1234.5, 1234.5, 1234.5), 0) == "1,234"
    assert shown(Spread(2.0, 1.0, 3.5), 1) == "2.0 (1.0 – 3.5)"


def test_table_escapes_bars() -> None:
    assert table(["a", "b"], [["1|2", "x"]]) == "| a | b |\n| --- | --- |\n| 1\\|2 | x |"


def test_columns_without_a_value_are_left_out() -> None:
    metrics = [Metric("rate", "req/s", 0), Metric("never", "never")]
    assert scenario_table(metrics, run().results.of("paid")).splitlines() == [
        "|  | target | req/s |",
        "| --- | --- | --- |",
        "| 64 connections | gateway * | 2,000 (1,900 – 2,200) |",
        "| 64 connections | portkey | 800 |",
        "| 64 connections | litellm | – (no \\| answer) |",
    ]


def test_markdown_is_whole() -> None:
    text = as_markdown(run())
    assert "| cores | 2 |" in text
    assert "- SKIPPED nginx: missing" in text
    assert "| paid | rate at 64 against Portkey | ≥ 2 × [2.8] | 2.5 × | met |" in text
    assert "### Paid POST, small answer" in text


def test_json_has_every_turn() -> None:
    found = json.loads(as_json(run()))
    gateway = found["rows"][0]
    assert [turn["rate"] for turn in gateway["turns"]] == [1900.0, 2000.0, 2200.0]
    assert gateway["medians"]["rate"] == {"median": 2000.0, "low": 1900.0, "high": 2200.0}
    assert gateway["noisy"]
    assert found["rows"][2]["skipped"] == "no | answer"


def test_goals_are_judged_from_medians() -> None:
    results = run().results
    rate = of("paid", MANY, "rate")
    peer = of("paid", MANY, "rate", "portkey")
    assert Goal("paid", "w", "≥", 2, ratio(rate, peer), " ×", 2.4).judge(results).verdict == "stretch"
    assert Goal("paid", "w", "≥", 2.6, ratio(rate, peer)).judge(results).verdict == "missed"
    assert Goal("paid", "w", "≤", 0.4, of("paid", MANY, "cpu")).judge(results).verdict == "met"
    missing = Goal("paid", "w", "≥", 1, ratio(rate, of("paid", MANY, "rate", "nginx"))).judge(results)
    assert (missing.found, missing.verdict) == ("not measured", "")


def test_only_scenarios_that_ran_have_goals() -> None:
    assert {one.scenario for one in judged(run().results)} == {"paid"}
    assert judged(Results()) == []


def test_figure() -> None:
    assert [figure(value) for value in (12345.6, 99.96, 0.01234, 0.0)] == ["12,346", "100", "0.0123", "0"]
