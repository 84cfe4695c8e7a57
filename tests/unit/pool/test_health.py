"""Rests: as long as the contract says, by use, never shortened by later news of less."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pool.health import HEALTHY, Health, Use, after
from gateway.upstream.outcomes import Outcome, Verdict

PAID, READ = Use.PAID, Use.READ
NOW = 1000.0
REFUSED, EXHAUSTED = Outcome(Verdict.KEY_REFUSED), Outcome(Verdict.KEY_EXHAUSTED)
ANSWERED, REJECTED = Outcome(Verdict.ANSWERED), Outcome(Verdict.REJECTED)

OUTCOMES = st.builds(
    Outcome,
    verdict=st.sampled_from(Verdict),
    retry_after=st.none() | st.floats(0, 1e6),
)
STEPS = st.lists(st.tuples(st.floats(0, 4000), st.sampled_from(Use), OUTCOMES), max_size=30)


def throttled(seconds: float | None) -> Outcome:
    return Outcome(Verdict.THROTTLED, retry_after=seconds)


@pytest.mark.parametrize(
    ("asked", "rest"),
    [(None, 5.0), (0.0, 1.0), (0.2, 1.0), (7.5, 7.5), (60.0, 60.0), (61.0, 60.0), (9e9, 60.0)],
)
@pytest.mark.parametrize(("use", "other"), [(PAID, READ), (READ, PAID)])
def test_a_429_rests_as_asked_for_its_own_use(use: Use, other: Use, asked: float | None, rest: float) -> None:
    found = after(HEALTHY, use, throttled(asked), NOW)
    assert found.until(use) == NOW + rest
    assert not found.rests(other, NOW)
    assert found.reason == "throttled"
    assert found.rests(use, NOW + rest - 0.01)
    assert not found.rests(use, NOW + rest)


@pytest.mark.parametrize("use", [PAID, READ])
def test_a_refused_key_rests_a_minute_altogether(use: Use) -> None:
    found = after(HEALTHY, use, REFUSED, NOW)
    assert (found.paid_until, found.reads_until, found.reason) == (NOW + 60, NOW + 60, "refused")


def test_a_key_out_of_credits_rests_longer_each_time_and_is_still_read() -> None:
    health, now, rests = HEALTHY, NOW, []
    for _ in range(6):
        health = after(health, PAID, EXHAUSTED, now)
        assert not health.rests(READ, now)
        rests.append(health.paid_until - now)
        now = health.paid_until
    assert rests == [300, 600, 1200, 2400, 3600, 3600]
    assert after(after(health, PAID, ANSWERED, now), PAID, EXHAUSTED, now).paid_until == now + 300


def test_refusals_of_calls_sent_before_the_rest_do_not_lengthen_it() -> None:
    health = after(HEALTHY, PAID, EXHAUSTED, NOW)
    for second in range(1, 50):
        assert after(health, PAID, EXHAUSTED, NOW + second) is health


def test_a_key_can_be_out_of_credits_for_ever() -> None:
    worn = Health(paid_until=NOW, reason="out_of_credits", refusals=100_000)
    assert after(worn, PAID, EXHAUSTED, NOW).paid_until == NOW + 3600


@pytest.mark.parametrize("later", [throttled(1.0), throttled(60.0), REFUSED, ANSWERED])
@pytest.mark.parametrize("use", [PAID, READ])
def test_an_empty_account_s_rest_outlasts_lesser_news(later: Outcome, use: Use) -> None:
    health = after(HEALTHY, PAID, EXHAUSTED, NOW)
    assert after(health, use, later, NOW + 1).paid_until == NOW + 300


def test_a_paid_answer_after_the_rest_forgets_it() -> None:
    health = after(HEALTHY, PAID, throttled(10.0), NOW)
    assert after(health, PAID, ANSWERED, NOW + 9) is health
    assert after(health, READ, ANSWERED, NOW + 11) is health
    assert after(health, PAID, ANSWERED, NOW + 11) == HEALTHY


def test_a_paid_answer_does_not_end_the_rest_of_reads() -> None:
    health = after(HEALTHY, READ, throttled(30.0), NOW)
    found = after(health, PAID, ANSWERED, NOW + 1)
    assert found.rests(READ, NOW + 29)
    assert not found.rests(PAID, NOW + 1)


@settings(max_examples=30)
@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.NOT_SENT, Verdict.UNKNOWN])
@given(
    health=st.builds(
        Health, st.floats(0, 2000), st.floats(0, 2000), st.none() | st.just("throttled"), st.integers(0, 9)
    ),
    use=st.sampled_from(Use),
)
def test_what_does_not_concern_the_key_changes_nothing(verdict: Verdict, health: Health, use: Use) -> None:
    assert after(health, use, Outcome(verdict), NOW) is health


@given(st.sampled_from(Use), st.floats(0, 1e6))
def test_an_answer_to_a_healthy_key_is_no_news(use: Use, now: float) -> None:
    assert after(HEALTHY, use, ANSWERED, now) is HEALTHY
    as_read = Health(paid_until=now, reads_until=now)  # what another process wrote about a healthy key
    assert after(as_read, use, ANSWERED, now) is as_read


@settings(max_examples=60)
@given(STEPS)
def test_rests_are_bounded_and_never_shortened(steps: list[tuple[float, Use, Outcome]]) -> None:
    now, history = NOW, [HEALTHY]
    for wait, use, outcome in steps:
        now += wait
        history.append(after(history[-1], use, outcome, now))
        for before, found in pairwise(history[-2:]):
            assert found.paid_until <= max(now + 3600, before.paid_until)
            assert found.reads_until <= max(now + 60, before.reads_until)
            for one in Use:
                assert not before.rests(one, now) or found.until(one) >= before.until(one)
            assert found.rests(PAID, now) or not outcome.verdict.concerns_our_key or use is READ
