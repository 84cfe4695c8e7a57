"""The reads of a key: never more than its share in any window, and the reconciler's before polls where it counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pool.read_budget import RESERVED_SECONDS, ReadBudget, Reserve

STEPS = st.lists(st.tuples(st.floats(0, 0.6), st.booleans(), st.sampled_from([None, *Reserve])), max_size=200)


@given(st.floats(0.05, 50), STEPS)
def test_no_window_sees_more_than_its_share(
    per_second: float, steps: list[tuple[float, bool, Reserve | None]]
) -> None:
    budget, now = ReadBudget(per_second), 100.0
    taken: list[float] = []
    for wait, due, reserve in steps:
        now += wait
        if reserve is not None:
            budget.reserve(reserve, now)
        room = budget.room(now)
        assert (budget.opens_in(now) > 0) == (room == 0)
        got = budget.take(now, due=due)
        assert got <= (room > 0)
        assert got or not due or room == 0  # the reconciler is never kept out
        if got:
            taken.append(now)
        assert budget.room(now) == room - got
    for start in taken:
        seen = sum(start <= at < start + 1 for at in taken)
        assert seen <= max(1, per_second) + 1e-9 or per_second != int(per_second)
        seen_long = sum(start <= at < start + 20 for at in taken)
        assert seen_long <= 20 * per_second + max(1, per_second) + 1


def test_it_opens_again_when_the_oldest_read_is_a_second_old() -> None:
    budget = ReadBudget(5)
    assert [budget.take(10 + n / 10, due=True) for n in range(6)] == [True] * 5 + [False]
    assert budget.room(10.9) == 0
    assert round(budget.opens_in(10.9), 6) == 0.1
    assert budget.room(11.0) == 1


def test_every_second_read_is_left_to_the_reconciler_while_it_has_work() -> None:
    budget = ReadBudget(100)
    budget.reserve(Reserve.HALF, 0)
    assert budget.take(0, due=False)
    assert not budget.take(0.1, due=False)
    assert budget.take(0.2, due=True)
    assert budget.take(0.3, due=False)


def test_all_reads_are_its_own_when_a_task_waits_too_long_and_what_was_kept_is_forgotten() -> None:
    budget = ReadBudget(5)
    budget.reserve(Reserve.ALL, 0)
    assert not budget.take(0, due=False)
    assert budget.take(0, due=True)
    assert not budget.take(RESERVED_SECONDS - 0.01, due=False)
    assert budget.take(RESERVED_SECONDS, due=False)
