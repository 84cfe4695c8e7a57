"""Repeated reads: never more than one in ten, and one to begin with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pool.retry_budget import MOST, RetryBudget


@given(st.lists(st.booleans(), max_size=400))
def test_of_all_reads_at_most_a_tenth_is_repeated(wants: list[bool]) -> None:
    budget, repeated = RetryBudget(), 0
    for reads, wanted in enumerate(wants, start=1):
        budget.made()
        repeated += wanted and budget.take()
        assert repeated <= 1 + reads / 10


def test_what_was_not_used_is_kept_for_a_while() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.made()
    assert [budget.take() for _ in range(int(MOST) + 1)] == [True] * int(MOST) + [False]
