"""Choosing a key: never a full one, always the least loaded for its weight, ties by weight."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from random import Random
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pool.selection import Candidate, choose

CANDIDATES = st.lists(
    st.builds(
        Candidate[UUID],
        key=st.uuids(),
        in_flight=st.integers(0, 50),
        weight=st.integers(1, 1000),
        max_in_flight=st.none() | st.integers(1, 50),
    ),
    max_size=8,
    unique_by=lambda candidate: candidate.key,
)


def key(number: int, *, in_flight: int = 0, weight: int = 1, cap: int | None = None) -> Candidate[UUID]:
    return Candidate(UUID(int=number), in_flight, weight, cap)


@given(CANDIDATES, st.integers())
def test_a_full_key_is_never_chosen_and_a_free_one_always_found(
    candidates: list[Candidate[UUID]], seed: int
) -> None:
    chosen = choose(candidates, Random(seed))
    free = [one for one in candidates if one.max_in_flight is None or one.in_flight < one.max_in_flight]
    if chosen is None:
        assert free == []
        return
    assert chosen in free
    load = {one.key: Fraction(one.in_flight + 1, one.weight) for one in free}
    assert load[chosen.key] == min(load.values())


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 10), st.none() | st.integers(1, 30)), min_size=1, max_size=5),
    st.integers(1, 120),
    st.integers(),
)
def test_caps_hold_and_the_last_call_is_refused_only_when_all_are_full(
    keys: list[tuple[int, int | None]], calls: int, seed: int
) -> None:
    random, busy = Random(seed), [0] * len(keys)
    for _ in range(calls):
        pool = [key(i, in_flight=busy[i], weight=w, cap=cap) for i, (w, cap) in enumerate(keys)]
        chosen = choose(pool, random)
        if chosen is None:
            assert all(cap is not None and busy[i] == cap for i, (_, cap) in enumerate(keys))
            return
        busy[chosen.key.int] += 1
    assert all(cap is None or busy[i] <= cap for i, (_, cap) in enumerate(keys))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(1, 200), st.integers())
def test_running_calls_spread_by_weight(weights: list[int], calls: int, seed: int) -> None:
    random, busy = Random(seed), [0] * len(weights)
    for _ in range(calls):
        pool = [key(i, in_flight=busy[i], weight=weight) for i, weight in enumerate(weights)]
        chosen = choose(pool, random)
        assert chosen is not None
        busy[chosen.key.int] += 1
    # Nobody could have been chosen better: a key's load without its last call is below everyone's next.
    for i, weight in enumerate(weights):
        for j, other in enumerate(weights):
            assert busy[i] == 0 or Fraction(busy[i], weight) <= Fraction(busy[j] + 1, other)


def test_an_idle_pool_starts_with_any_key() -> None:
    random = Random(7)
    pool = [key(1), key(2), key(3)]
    first = Counter(chosen.key.int for _ in range(3000) if (chosen := choose(pool, random)))
    assert all(900 < first[number] < 1100 for number in (1, 2, 3))


def test_ties_are_drawn_by_weight() -> None:
    random = Random(7)
    pool = [key(1, in_flight=0, weight=1), key(2, in_flight=2, weight=3)]  # both 1 call a weight
    drawn = Counter(chosen.key.int for _ in range(4000) if (chosen := choose(pool, random)))
    assert drawn[2] / drawn[1] == pytest.approx(3, rel=0.15)


def test_nobody_is_there() -> None:
    assert choose([], Random(1)) is None
    assert choose([key(1, in_flight=2, cap=2), key(2, in_flight=9, cap=3)], Random(1)) is None
