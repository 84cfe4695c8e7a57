"""The light counters are read exactly as the client library's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from gateway.telemetry import counting

BOUNDS = (0.001, 0.25, 1, 60)
AMOUNTS = st.one_of(
    st.sampled_from((0.0, -0.5, 0.0009, *BOUNDS, 60.1)), st.floats(min_value=-1, max_value=100)
)
LABELS = st.tuples(st.sampled_from(("/v1/models", 'odd "x" \\ \n', "")), st.sampled_from(("200", 200, 404)))
DONE = st.lists(st.tuples(LABELS, AMOUNTS), max_size=40)


@pytest.fixture(autouse=True, scope="module")
def _one_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", count(1_700_000_000.25, 0).__next__)
        yield


def after(kinds: Any, done: list[tuple[tuple[object, object], float]]) -> CollectorRegistry:
    """What four metrics of these `kinds` tell after the same was done to them."""
    registry = CollectorRegistry()
    alone = kinds.Counter("alone", "Without labels.", registry=registry)
    counter = kinds.Counter("counted", "With labels,\nin two lines.", ("route", "status"), registry=registry)
    whole = kinds.Histogram("whole", "Of all.", registry=registry, buckets=BOUNDS)
    parts = kinds.Histogram("parts", "By labels.", ("route", "status"), registry=registry, buckets=BOUNDS)
    for labels, amount in done:
        alone.inc()
        counter.labels(*labels).inc(abs(amount))
        whole.observe(amount)
        parts.labels(*labels).observe(amount)
    return registry


@given(done=DONE)
def test_the_page_is_that_of_the_library(done: list[tuple[tuple[object, object], float]]) -> None:
    ours, theirs = after(counting, done), after(prometheus_client, done)
    assert generate_latest(ours) == generate_latest(theirs)


def test_one_name_is_one_metric() -> None:
    registry = CollectorRegistry()
    counting.Counter("counted", "Once.", registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        prometheus_client.Gauge("counted_total", "Twice.", registry=registry)


def test_what_no_counter_can_be_told_is_refused() -> None:
    registry = CollectorRegistry()
    counter = counting.Counter("counted", "Counted.", ("route",), registry=registry)
    for wrong in ((), ("a", "b")):
        with pytest.raises(ValueError, match="labels"):
            counter.labels(*wrong)
    with pytest.raises(ValueError, match="labels"):
        counter.inc()
    with pytest.raises(ValueError, match="grows"):
        counter.labels("a").inc(-1)
    assert registry.get_sample_value("counted_total", {"route": "a"}) == 0


@pytest.mark.parametrize(("switch", "told"), [("", True), ("true", False)])
def test_beginnings_are_left_out_by_the_library_s_own_switch(switch: str, told: bool) -> None:
    show = "from gateway.telemetry import Metrics; import prometheus_client as p, sys; "
    show += "m = Metrics(); m.own_seconds.observe(1); m.odd_costs.inc(); "
    show += "sys.stdout.buffer.write(p.generate_latest(m.registry))"
    environment = {**os.environ, "PROMETHEUS_DISABLE_CREATED_SERIES": switch}
    page = subprocess.run([sys.executable, "-c", show], env=environment, capture_output=True, check=True)
    for name in (b"\ngateway_own_seconds_created ", b"\ngateway_odd_costs_created "):
        assert (name in page.stdout) is told
