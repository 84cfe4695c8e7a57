"""The breaker: opens after failures in a row, for its time, and one probe at a time decides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.breaker import Breaker


def opened(seconds: float = 30.0) -> Breaker:
    breaker = Breaker(1, seconds)
    assert breaker.failed(100.0)
    return breaker


def test_it_opens_with_the_fifth_failure_in_a_row() -> None:
    breaker = Breaker(5, 30.0)
    assert [breaker.failed(1.0) for _ in range(4)] == [False] * 4
    breaker.succeeded()
    assert [breaker.failed(2.0) for _ in range(5)] == [False] * 4 + [True]
    assert breaker.is_open


def test_failures_while_it_is_open_neither_open_it_again_nor_lengthen_the_rest() -> None:
    breaker = opened()
    assert not breaker.failed(120.0)
    breaker.succeeded()
    assert breaker.is_open
    assert not breaker.probe_is_due(129.9)
    assert breaker.probe_is_due(130.0)


def test_one_probe_at_a_time() -> None:
    breaker = opened()
    assert not breaker.begin_probe(129.9)
    assert breaker.begin_probe(130.0)
    assert not breaker.probe_is_due(140.0)
    assert not breaker.begin_probe(140.0)


def test_a_probe_that_was_answered_closes_it_and_failures_count_from_nothing() -> None:
    breaker = Breaker(2, 30.0)
    assert [breaker.failed(100.0), breaker.failed(100.0)] == [False, True]
    assert breaker.begin_probe(130.0)
    breaker.probed(True, 130.1)
    assert not breaker.is_open
    assert not breaker.probe_is_due(200.0)
    assert [breaker.failed(131.0), breaker.failed(131.0)] == [False, True]


def test_a_probe_that_failed_begins_another_rest() -> None:
    breaker = opened()
    assert breaker.begin_probe(130.0)
    breaker.probed(False, 130.2)
    assert breaker.is_open
    assert not breaker.probe_is_due(160.1)
    assert breaker.begin_probe(160.2)


@given(st.lists(st.sampled_from(["failed", "succeeded"]), max_size=60), st.integers(1, 8))
def test_it_is_open_exactly_after_that_many_in_a_row(steps: list[str], limit: int) -> None:
    breaker, row, expected = Breaker(limit, 30.0), 0, False
    for step in steps:
        if step == "failed":
            row += 1
            just_now = not expected and row == limit
            assert breaker.failed(5.0) is just_now
            expected = expected or just_now
        else:
            breaker.succeeded()
            row = 0
        assert breaker.is_open is expected
