"""The rule of a rate, as a table and as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.rate import MINUTE, Allowance, take

SECOND = 1_000_000
PER_MINUTE = st.integers(1, 100_000)
NOW = st.integers(1, 2**52)


def used_up(per_minute: int, now: int) -> int:
    """The state of an allowance that was emptied at `now`."""
    full_at = 0
    while (one := take(per_minute, full_at, now)).allowed:
        full_at = one.full_at
    return full_at


def test_a_whole_minute_s_allowance_may_be_used_at_once_and_fills_up_evenly() -> None:
    now, full_at, seen = 1000 * SECOND, 0, []
    for _ in range(3):
        one = take(3, full_at, now)
        full_at = one.full_at
        seen.append((one.allowed, one.remaining, one.wait // SECOND, one.until_full // SECOND))
    assert seen == [(True, 2, 0, 20), (True, 1, 0, 40), (True, 0, 20, 60)]
    refused = take(3, full_at, now + 5 * SECOND)
    assert refused == Allowance(
        allowed=False, full_at=full_at, remaining=0, wait=15 * SECOND, until_full=55 * SECOND
    )
    assert take(3, full_at, now + 20 * SECOND).allowed


@given(PER_MINUTE, NOW)
def test_an_unused_allowance_holds_exactly_a_minute_s_worth(per_minute: int, now: int) -> None:
    assert take(per_minute, 0, now).remaining == per_minute - 1


@given(st.integers(1, 300), NOW)
def test_exactly_that_many_at_once(per_minute: int, now: int) -> None:
    full_at = used_up(per_minute, now)
    assert (full_at - now) == -(-MINUTE // per_minute) * per_minute


@given(PER_MINUTE, NOW, st.integers(0, 3 * MINUTE))
def test_who_waits_as_told_is_allowed_and_not_a_microsecond_earlier(
    per_minute: int, now: int, ahead: int
) -> None:
    one = take(per_minute, now + ahead, now)
    if one.allowed:
        return
    assert one.wait > 0
    assert take(per_minute, one.full_at, now + one.wait).allowed
    assert not take(per_minute, one.full_at, now + one.wait - 1).allowed


@given(PER_MINUTE, NOW, st.integers(0, 3 * MINUTE))
def test_it_is_whole_again_when_it_says_so(per_minute: int, now: int, ahead: int) -> None:
    one = take(per_minute, now + ahead, now)
    assert take(per_minute, one.full_at, now + one.until_full).remaining == per_minute - 1


@given(PER_MINUTE, NOW, st.integers(0, 3 * MINUTE))
def test_a_refusal_takes_nothing(per_minute: int, now: int, ahead: int) -> None:
    one = take(per_minute, now + ahead, now)
    if not one.allowed:
        assert take(per_minute, one.full_at, now) == one
        assert one.remaining == 0


@given(PER_MINUTE, NOW, st.integers(0, 10 * 365 * 24 * 60 * MINUTE))
def test_nobody_waits_for_ever_when_a_clock_was_put_back_or_a_limit_changed(
    per_minute: int, now: int, ahead: int
) -> None:
    one = take(per_minute, now + ahead, now)
    assert one.wait <= -(-MINUTE // per_minute)
    assert one.until_full <= MINUTE + per_minute


@given(
    st.integers(1, 60),
    st.lists(st.integers(0, 20 * SECOND), min_size=1, max_size=200),
)
def test_no_stretch_of_time_sees_more_than_a_burst_and_the_rate(per_minute: int, steps: list[int]) -> None:
    now, full_at, passed = SECOND, 0, []
    for step in steps:
        now += step
        one = take(per_minute, full_at, now)
        full_at = one.full_at
        if one.allowed:
            passed.append(now)
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            stretch = passed[last] - begin
            assert last - first + 1 <= per_minute + stretch * per_minute // MINUTE + 1


@pytest.mark.parametrize("per_minute", [1, 7, 60, 600, 59_999_999, 60_000_001, 10**9])
def test_any_limit_can_be_worked_with(per_minute: int) -> None:
    one = take(per_minute, 0, 10**15)
    assert one.allowed
    assert one.remaining == per_minute - 1


def test_a_steady_stream_at_the_rate_always_passes() -> None:
    now, full_at = SECOND, used_up(60, SECOND)
    for _ in range(500):
        now += SECOND
        one = take(60, full_at, now)
        assert one.allowed
        full_at = one.full_at
