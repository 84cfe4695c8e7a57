"""The reads of a key: never more than its share in any window, and the reconciler's before polls where it counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pool.read_budget import RESERVED_SECONDS, ReadBudget, ReadFor, Reserve

PURPOSES, RESERVES = st.sampled_from(ReadFor), st.sampled_from([None, *Reserve])
STEPS = st.lists(st.tuples(st.floats(0, 0.6), PURPOSES, RESERVES), max_size=200)


@given(st.floats(0.05, 50), STEPS)
def test_no_window_sees_more_than_its_share(
    per_second: float, steps: list[tuple[float, ReadFor, Reserve | None]]
) -> None:
    budget, now = ReadBudget(per_second), 100.0
    taken: list[float] = []
    for wait, purpose, reserve in steps:
        now += wait
        if reserve is not None:
            budget.reserve(reserve, now)
        room = budget.room(now)
        assert (budget.opens_in(now) > 0) == (room == 0)
        got = budget.take(now, purpose)
        assert got <= (room > 0)
        assert got or purpose is not ReadFor.DUE or room == 0  # the reconciler is never kept out
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
    assert [budget.take(10 + n / 10, ReadFor.DUE) for n in range(6)] == [True] * 5 + [False]
    assert budget.room(10.9) == 0
    assert round(budget.opens_in(10.9), 6) == 0.1
    assert budget.room(11.0) == 1


def test_polls_get_half_of_the_reads_while_tasks_are_due() -> None:
    budget = ReadBudget(5)
    budget.reserve(Reserve.HALF, 0)
    assert [budget.take(0, ReadFor.POLL) for _ in range(4)] == [True, True, False, False]
    assert [budget.take(0.1, ReadFor.DUE) for _ in range(4)] == [True, True, True, False]
    assert budget.take(1.0, ReadFor.POLL)  # another window, whether anybody read what is due or not


def test_one_read_a_window_is_anybody_s() -> None:
    budget = ReadBudget(0.5)
    budget.reserve(Reserve.HALF, 0)
    assert budget.take(0, ReadFor.POLL)
    assert not budget.take(1.9, ReadFor.DUE)
    assert budget.take(2, ReadFor.DUE)


def test_what_is_wanted_anew_never_takes_more_than_half() -> None:
    budget = ReadBudget(5)
    assert [budget.take(0, ReadFor.RENEWAL) for _ in range(3)] == [True, True, False]
    assert [budget.take(0, ReadFor.POLL) for _ in range(4)] == [True, True, True, False]
    budget.reserve(Reserve.HALF, 5)
    assert [budget.take(5, ReadFor.RENEWAL) for _ in range(3)] == [True, True, False]
    budget.reserve(Reserve.ALL, 10)
    assert not budget.take(10, ReadFor.RENEWAL)


def test_a_read_that_is_not_made_is_given_back() -> None:
    budget = ReadBudget(1)
    for _ in range(3):
        assert budget.take(0, ReadFor.POLL)
        budget.give_back()
    assert budget.room(0) == 1
    budget.give_back()
    assert budget.room(0) == 1


def test_all_reads_are_its_own_when_a_task_waits_too_long_and_what_was_kept_is_forgotten() -> None:
    budget = ReadBudget(5)
    budget.reserve(Reserve.ALL, 0)
    assert not budget.take(0, ReadFor.POLL)
    assert budget.take(0, ReadFor.DUE)
    assert not budget.take(RESERVED_SECONDS - 0.01, ReadFor.POLL)
    assert budget.take(RESERVED_SECONDS, ReadFor.POLL)
