"""Stacked days: nothing is lost between the layers and the sums, whatever is on top."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.pages.chart import LAYERS, days_between, projected, stacked

START = date(2026, 10, 30)
DAYS = days_between(START, START + timedelta(days=5))
SPENT = st.dictionaries(st.sampled_from(DAYS), st.integers(0, 10**15))


@given(st.lists(SPENT, max_size=LAYERS), SPENT)
def test_layers_add_up_to_each_day(top: list[dict[date, int]], rest: dict[date, int]) -> None:
    sums = {day: rest.get(day, 0) + sum(one.get(day, 0) for one in top) for day in DAYS}
    chart = stacked(DAYS, sums, [(f"n{at}", one) for at, one in enumerate(top)], "Other")
    assert chart.by_day() == list(sums.items())
    assert chart.total == sum(sums.values())
    assert [layer.name for layer in chart.layers if layer.name == "Other"] == (
        ["Other"] if any(rest.values()) else []
    )


def test_what_is_drawn_is_exact_and_may_add_up() -> None:
    chart = stacked(DAYS, {DAYS[0]: 1, DAYS[2]: 2_500_000}, [("a", {DAYS[2]: 2_500_000})], "Other", ["/a"])
    plain, summed = chart.document(cumulative=False), chart.document(cumulative=True)
    assert plain["series"][0]["values"] == ["0", "0", "2.5", "0", "0"]
    assert summed["series"][0]["values"] == ["0", "0", "2.5", "2.5", "2.5"]
    assert plain["series"][1] == {"name": "Other", "tone": "s7", "values": ["0.000001", "0", "0", "0", "0"]}
    assert plain["days"][0] == "2026-10-30"
    assert chart.layers[0].link == "/a"


def test_a_month_is_projected_from_its_last_seven_whole_days() -> None:
    spent = {date(2026, 11, day): 1000 for day in range(1, 15)} | {date(2026, 11, 15): 100}
    assert projected(spent, date(2026, 11, 15), 30) == 30_000
    busy = spent | {date(2026, 11, 15): 5000}
    assert projected(busy, date(2026, 11, 15), 30) == 14_000 + 5000 + 15_000, (
        "a day above the pace counts as it is"
    )
    assert projected({date(2026, 11, 1): 7}, date(2026, 11, 1), 30) is None, (
        "nothing is known on the first day"
    )
    assert projected({}, date(2026, 11, 9), 30) == 0
    ahead = {date(2026, 11, 22): 0, date(2026, 11, 23): 56}
    assert projected(ahead, date(2026, 11, 22), 30) == 56, "where tomorrow has begun, it counts"
