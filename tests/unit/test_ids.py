"""UUIDv7: ordered by time, and cut where partitions are."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from gateway.ids import lowest_uuid7, uuid7

MILLISECONDS = st.integers(0, 2**48 - 1)


@given(MILLISECONDS)
def test_it_is_a_version_7_uuid_of_its_moment(milliseconds: int) -> None:
    made = uuid7(milliseconds)
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int >> 80 == milliseconds


def test_a_new_one_is_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_they_do_not_repeat_and_all_bits_vary() -> None:
    made = [uuid7(5) for _ in range(2000)]
    assert len(set(made)) == len(made)
    ones = zeros = 0
    for one in made:
        ones |= one.int
        zeros |= ~one.int
    free = (1 << 76) - 1 - (0b11 << 62)  # all after the version but the variant
    assert ones & zeros & ((1 << 80) - 1) == free


@given(MILLISECONDS, MILLISECONDS)
def test_they_sort_by_time(first: int, second: int) -> None:
    if first < second:
        assert uuid7(first) < uuid7(second)
        assert str(uuid7(first)) < str(uuid7(second))


@given(st.integers(1, 7_000_000_000_000))
def test_the_lowest_of_an_instant_is_below_all_of_it_and_above_all_before(milliseconds: int) -> None:
    lowest = lowest_uuid7(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds))
    assert uuid7(milliseconds - 1) < lowest <= uuid7(milliseconds)


def test_months_are_bounds_in_order() -> None:
    months = [lowest_uuid7(datetime(2026, month, 1, tzinfo=UTC)) for month in range(1, 13)]
    assert all(before < after for before, after in pairwise(months))
    assert months[0] == UUID("019b76da-a800-0000-0000-000000000000")
