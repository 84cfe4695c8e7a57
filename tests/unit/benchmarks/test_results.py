"""Medians, spread, and rows that were never measured."""

from __future__ import annotations

from benchmarks.compare.results import NOISY, Results, Row, Sample, Spread, spread


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([4.0, 1.0]) == Spread(2.5, 1.0, 4.0)
    assert spread([]) is None


def test_row_leaves_out_turns_without_the_metric() -> None:
    row = Row([Sample({"rate": 10.0, "p50": 1.0}), Sample({"rate": 30.0})])
    assert row.spread("rate") == Spread(20.0, 10.0, 30.0)
    assert row.spread("p50") == Spread(1.0, 1.0, 1.0)
    assert row.spread("cpu") is None


def test_noise_is_the_median_turns() -> None:
    quiet, loud = Sample({}, 0.0), Sample({}, 0.9)
    assert not Row([quiet, quiet, loud]).noisy
    assert Row([quiet, loud, loud]).noisy
    assert not Row([Sample({}, NOISY)]).noisy
    assert not Row().noisy


def test_results_by_scenario() -> None:
    results = Results()
    results.add("paid", "64", "gateway", Sample({"rate": 1.0}))
    results.add("paid", "64", "gateway", Sample({"rate": 3.0}))
    results.add("polls", "64", "gateway", Sample({"rate": 9.0}))
    results.skip("paid", "64", "portkey", "cannot")
    assert results.median("paid", "64", "gateway", "rate") == 2.0
    assert results.median("paid", "1", "gateway", "rate") is None
    assert results.median("paid", "64", "portkey", "rate") is None
    assert results.skipped("paid", "64", "portkey")
    assert not results.skipped("paid", "64", "gateway")
    assert list(results.of("paid")) == [("64", "gateway"), ("64", "portkey")]
