"""When a task is read next: never later than promised, rarely before its usual end, never at once."""

from __future__ import annotations

import math
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.tasks.schedule import (
    AFTER_FAILURE,
    FREQUENT,
    LONGEST,
    SHORTEST,
    TOO_OLD,
    Pace,
    Progress,
    Usual,
    learnt,
    next_read,
    stretch_of,
)

DAY = 86_400.0
AGES = st.floats(0, DAY - 1)
USUAL = st.none() | st.builds(Usual, st.floats(0, 3600), st.floats(0, 3600))
FAILED = st.integers(0, 10_000)


def instants(lasts: float, usual: Usual | None) -> list[float]:
    """The ages at which a task that lasts so long is read, the one that sees its end last."""
    found = [SHORTEST]
    while found[-1] < lasts:
        found.append(found[-1] + next_read(Progress(age=found[-1], usual=usual)))
    return found


@given(AGES, USUAL, FAILED)
def test_no_task_waits_longer_than_promised_or_is_read_again_at_once(
    age: float, usual: Usual | None, failed: int
) -> None:
    assert SHORTEST <= next_read(Progress(age=age, usual=usual, failed=failed)) <= LONGEST


@given(AGES, USUAL, FAILED, st.floats(0, 1000))
def test_every_interval_stretches_by_the_same_factor(
    age: float, usual: Usual | None, failed: int, stretch: float
) -> None:
    plain = next_read(Progress(age=age, usual=usual, failed=failed))
    stretched = next_read(Progress(age=age, usual=usual, failed=failed, stretch=stretch))
    assert math.isclose(stretched, plain * max(1.0, stretch))


@given(st.floats(0, 600), USUAL)
def test_an_end_is_seen_within_the_longest_interval(lasts: float, usual: Usual | None) -> None:
    assert instants(lasts, usual)[-1] - lasts <= LONGEST


@given(st.floats(10, 600), st.floats(0, 100), st.floats(-1, 1))
def test_an_end_about_the_usual_time_is_seen_within_the_frequent_interval(
    seconds: float, spread: float, off: float
) -> None:
    usual = Usual(seconds, spread)
    lasts = seconds + off * usual.margin
    assume(lasts > SHORTEST)
    assert instants(lasts, usual)[-1] - lasts <= FREQUENT


@given(st.floats(60, 600), st.floats(0.9, 1.1))
def test_what_is_learnt_saves_reads_and_is_sooner(usual: float, of_usual: float) -> None:
    known, unknown = (instants(usual * of_usual, what) for what in (Usual(usual), None))
    assert known[-1] <= unknown[-1] or known[-1] - usual * of_usual <= FREQUENT
    before = [age for age in known if age < 0.7 * usual]
    assert len(before) <= 2 + 0.7 * usual / LONGEST


def test_the_course_of_a_model_never_seen() -> None:
    assert instants(100, None) == [2, 4, 6, 9, 13.5, 20.25, 30.375, 45.5625, 68.34375, 93.34375, 118.34375]


def test_the_course_of_a_model_that_takes_a_minute() -> None:
    assert instants(60, Usual(60)) == [2, 27, 42, 47, 52, 57, 62]


def test_failures_back_off_to_the_longest_interval() -> None:
    waits = [next_read(Progress(age=5, failed=failed)) for failed in range(1, 8)]
    assert waits[0] == AFTER_FAILURE
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST


@given(st.floats(DAY, 100 * DAY), USUAL, FAILED, st.floats(0, 10))
def test_a_task_that_should_have_ended_long_ago_is_read_slowly(
    age: float, usual: Usual | None, failed: int, stretch: float
) -> None:
    assert next_read(Progress(age=age, usual=usual, failed=failed, stretch=stretch)) == TOO_OLD


@given(st.integers(0, 100_000), st.floats(0.1, 100), st.integers(0, 50))
def test_stretched_intervals_leave_a_read_for_every_open_task(tasks: int, rate: float, keys: int) -> None:
    factor = stretch_of(tasks, rate, keys)
    able = LONGEST * rate * max(1, keys)
    assert factor >= 1
    assert (factor == 1) == (tasks <= able)
    assert tasks <= able * factor * (1 + 1e-9)


@given(st.floats(1, 600), st.integers(0, 2**32))
def test_durations_are_learnt_from_what_was_seen(usual: float, seed: int) -> None:
    pace, random = Pace(), Random(seed)
    assert pace.usual("veo") is None
    for _ in range(40):
        unseen = random.uniform(0, 5)
        pace.learn("veo", usual + unseen / 2, unseen)
    found = pace.usual("veo")
    assert found is not None
    assert math.isclose(found.seconds, usual, rel_tol=1e-6)
    assert found.margin == 0.3 * found.seconds
    assert pace.usual("kling") is None


def test_an_end_nobody_looked_for_teaches_nothing() -> None:
    pace = Pace()
    pace.learn("veo", 3600, 3600)
    assert pace.usual("veo") is None
    pace.learn("veo", 60, 4)
    pace.learn("veo", 3660, 3600)
    assert pace.usual("veo") == Usual(58)


@given(st.lists(st.floats(1, 600), min_size=1, max_size=50))
def test_what_is_usual_stays_among_what_was_seen(durations: list[float]) -> None:
    usual: Usual | None = None
    for seconds in durations:
        usual = learnt(usual, seconds)
    assert usual is not None
    assert min(durations) - 1e-6 <= usual.seconds <= max(durations) + 1e-6
    assert 0 <= usual.spread <= max(durations) - min(durations) + 1e-6


def test_a_model_whose_tasks_differ_much_is_read_often_for_long() -> None:
    usual: Usual | None = None
    for _ in range(20):
        for seconds in (10, 100):
            usual = learnt(usual, seconds)
    assert usual is not None
    assert usual.seconds - usual.margin <= 10
    assert usual.seconds + usual.margin >= 100


def test_the_pace_knows_model_account_and_age() -> None:
    pace = Pace(max_age=100)
    pace.learn("veo", 60, 0)
    pace.stretch({"busy": 2.0})
    assert pace.next_read("veo", "calm", 2) == 25
    assert pace.next_read("veo", "busy", 2) == 50
    assert pace.next_read("kling", "calm", 2) == 2
    assert pace.next_read("veo", "calm", 50, failed=1) == AFTER_FAILURE
    assert pace.next_read("veo", "calm", 100) == TOO_OLD
