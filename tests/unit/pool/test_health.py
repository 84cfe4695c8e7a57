"""Rests: as long as the contract says, by use, never shortened by news of less, and ended by what may end them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pool.health import (
    FAILING,
    HEALTHY,
    NO_FAILURES,
    OUT_OF_CREDITS,
    REFUSED,
    THROTTLED,
    Health,
    Look,
    Use,
    Word,
    after,
    counted,
    is_relied_on,
    looked,
)
from gateway.upstream.outcomes import Trouble, Verdict

PAID, READ = Use.PAID, Use.READ
NOW = 1000.0

VERDICTS = st.sampled_from(Verdict)
STEPS = st.lists(
    st.tuples(
        st.floats(0, 4000),
        st.sampled_from(Use),
        VERDICTS,
        st.none() | st.floats(0, 1e6),
        st.floats(0, 700),
        st.booleans(),
        st.booleans(),
    ),
    max_size=30,
)
LOOKS = st.sampled_from(Look)


def word(verdict: Verdict, at: float = NOW, use: Use = PAID, **fields: Any) -> Word:
    """Of a call leased when it ended, unless `since` says otherwise."""
    return Word(use, verdict, fields.pop("since", at), at, **fields)


def throttled(seconds: float | None, at: float = NOW, use: Use = PAID) -> Word:
    return word(Verdict.THROTTLED, at, use, retry_after=seconds)


def empty(at: float = NOW, **fields: Any) -> Word:
    return word(Verdict.KEY_EXHAUSTED, at, **fields)


def broke(at: float = NOW) -> Word:
    return word(Verdict.UNKNOWN, at, broke=True)


REFUSAL = word(Verdict.KEY_REFUSED)


@pytest.mark.parametrize(
    ("asked", "rest"),
    [(None, 5.0), (0.0, 1.0), (0.2, 1.0), (7.5, 7.5), (60.0, 60.0), (61.0, 60.0), (9e9, 60.0)],
)
@pytest.mark.parametrize(("use", "other"), [(PAID, READ), (READ, PAID)])
def test_a_429_rests_as_asked_for_its_own_use(use: Use, other: Use, asked: float | None, rest: float) -> None:
    found = after(HEALTHY, throttled(asked, use=use))
    assert found.until(use) == NOW + rest
    assert not found.rests(other, NOW)
    assert found.reason == THROTTLED
    assert found.rests(use, NOW + rest - 0.01)
    assert not found.rests(use, NOW + rest)


# Out of credits --------------------------------------------------------------------------------------------


def test_a_key_out_of_credits_rests_longer_each_time_and_is_still_read() -> None:
    health, now, rests = HEALTHY, NOW, []
    for _ in range(6):
        health = after(health, empty(now, trial=True))
        assert not health.rests(READ, now)
        rests.append(health.paid_until - now)
        now = health.paid_until
    assert rests == [300, 600, 1200, 2400, 3600, 3600]
    well = after(health, word(Verdict.ANSWERED, now, trial=True))
    assert well == HEALTHY
    assert after(well, empty(now)).paid_until == now + 300


def test_refusals_of_calls_sent_before_the_rest_was_over_do_not_lengthen_it() -> None:
    health = after(HEALTHY, empty())
    for second in range(1, 400):
        assert after(health, empty(NOW + second, since=NOW - 1)) is health


def test_only_the_trial_shows_that_an_account_has_credits_again() -> None:
    health = after(HEALTHY, empty())
    over = health.paid_until
    assert health.half_open(over)
    tried = Health(health.paid_until, health.reads_until, health.reason, health.count, trial_until=over + 620)
    assert tried.rests(PAID, over)
    assert not tried.rests(READ, over)
    assert after(tried, word(Verdict.ANSWERED, over + 1)) is tried
    assert after(tried, word(Verdict.ANSWERED, over + 1, since=over, trial=True)) == HEALTHY


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.UNKNOWN, Verdict.NOT_SENT, Verdict.THROTTLED])
def test_a_trial_that_shows_nothing_makes_room_for_another(verdict: Verdict) -> None:
    over = NOW + 300
    tried = Health(over, 0.0, OUT_OF_CREDITS, 1, trial_until=over + 620)
    found = after(tried, word(verdict, over + 1, trial=True, retry_after=1.0))
    assert (found.reason, found.count, found.trial_until) == (OUT_OF_CREDITS, 1, 0.0)
    assert found.half_open(over + 3)
    assert not found.rests(PAID, over + 3)


def test_a_key_can_be_out_of_credits_for_ever() -> None:
    worn = Health(paid_until=NOW, reason=OUT_OF_CREDITS, count=100_000)
    assert after(worn, empty(NOW, trial=True)).paid_until == NOW + 3600


@pytest.mark.parametrize("later", [throttled(1.0, NOW + 1), throttled(60.0, NOW + 1), REFUSAL, broke()])
def test_an_empty_account_s_rest_outlasts_lesser_news(later: Word) -> None:
    assert after(after(HEALTHY, empty()), later).paid_until == NOW + 300


# Refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [PAID, READ])
def test_a_refused_key_rests_a_minute_altogether_and_is_checked(use: Use) -> None:
    found = after(HEALTHY, word(Verdict.KEY_REFUSED, use=use))
    assert (found.paid_until, found.reads_until, found.reason) == (NOW + 60, NOW + 60, REFUSED)
    assert found.check_at == NOW
    assert after(found, word(Verdict.KEY_REFUSED, NOW + 30, use)) is found


def test_after_its_minute_a_refused_key_still_waits_for_the_list() -> None:
    found = after(HEALTHY, REFUSAL)
    for use in Use:
        assert found.rests(use, NOW + 3600)
    assert after(found, word(Verdict.ANSWERED, NOW + 3600)) is found


def test_the_list_lets_a_refused_key_come_back_when_its_minute_is_over() -> None:
    health = after(HEALTHY, REFUSAL)
    early = looked(health, Look.ACCEPTED, NOW + 1, off=False)
    assert not early.off
    assert early.health.rests(PAID, NOW + 59)
    assert early.health.check_at == NOW + 60
    assert looked(early.health, Look.ACCEPTED, NOW + 60, off=False).health == HEALTHY


@pytest.mark.parametrize("at", [NOW, NOW + 61])
def test_a_list_that_refuses_too_puts_the_key_off_until_it_accepts(at: float) -> None:
    ruling = looked(after(HEALTHY, REFUSAL), Look.REFUSED, at, off=False)
    assert ruling.off
    assert ruling.health.check_at == at + 300
    again = looked(ruling.health, Look.REFUSED, at + 300, off=True)
    assert (again.off, again.health.check_at) == (True, at + 600)
    unknown = looked(again.health, Look.UNDECIDED, at + 600, off=True)
    assert (unknown.off, unknown.health.check_at) == (True, at + 900)
    back = looked(unknown.health, Look.ACCEPTED, at + 900, off=True)
    assert (back.off, back.health) == (False, HEALTHY)


def test_a_list_that_says_nothing_is_asked_again_soon() -> None:
    found = looked(after(HEALTHY, REFUSAL), Look.UNDECIDED, NOW + 100, off=False)
    assert (found.off, found.health.check_at, found.health.reason) == (False, NOW + 105, REFUSED)
    assert found.health.rests(PAID, NOW + 105)


def test_an_empty_account_that_was_refused_meanwhile_is_empty_afterwards() -> None:
    health = after(after(HEALTHY, empty()), REFUSAL)
    found = looked(health, Look.ACCEPTED, NOW + 60, off=False).health
    assert (found.reason, found.paid_until, found.check_at) == (OUT_OF_CREDITS, NOW + 300, None)
    assert not found.rests(READ, NOW + 60)


# The breaker -----------------------------------------------------------------------------------------------


def test_a_key_that_fails_opens_for_longer_each_time_until_a_paid_call_is_answered() -> None:
    health, now, rests = HEALTHY, NOW, []
    for _ in range(6):
        health = after(health, broke(now))
        assert health.reason == FAILING
        assert not health.rests(READ, now)
        rests.append(health.paid_until - now)
        assert health.check_at == health.paid_until
        assert health.rests(PAID, health.paid_until + 1)
        now = health.paid_until
        health = looked(health, Look.ACCEPTED, now, off=False).health
        assert not health.rests(PAID, now)
    assert rests == [30, 60, 120, 240, 300, 300]
    assert after(health, word(Verdict.ANSWERED, now + 1, since=now - 1)) is health
    assert after(health, word(Verdict.ANSWERED, now + 1)) == HEALTHY


def test_a_list_that_does_not_answer_opens_it_for_longer() -> None:
    health = after(HEALTHY, broke())
    found = looked(health, Look.UNDECIDED, NOW + 30, off=False)
    assert (found.off, found.health.paid_until, found.health.count) == (False, NOW + 90, 2)
    assert looked(found.health, Look.REFUSED, NOW + 90, off=False).off


def test_an_empty_account_that_fails_too_is_empty() -> None:
    health = after(HEALTHY, empty())
    assert after(health, broke(NOW + 1)) is health


def test_an_open_key_is_opened_once() -> None:
    health = after(HEALTHY, broke())
    assert after(health, broke(NOW + 10)) is health


def test_what_pixapi_says_of_an_open_key_that_was_the_last_counts() -> None:
    health = after(HEALTHY, broke())
    assert (
        after(health, Word(PAID, Verdict.THROTTLED, NOW - 1, NOW + 1, 5.0)) is health
    )  # sent before it opened
    found = after(health, throttled(5.0, NOW + 1))
    assert (found.reason, found.paid_until, found.check_at) == (THROTTLED, NOW + 6, None)
    found = after(health, empty(NOW + 1))
    assert (found.reason, found.paid_until, found.check_at) == (OUT_OF_CREDITS, NOW + 301, None)
    assert after(health, word(Verdict.KEY_REFUSED, NOW + 1)).reason == REFUSED


FAILURE = st.sampled_from(
    [
        (Verdict.UNKNOWN, Trouble.BARE, "a"),
        (Verdict.UNKNOWN, Trouble.WORDED, "a"),
        (Verdict.REJECTED, Trouble.WORDED, "a"),
        (Verdict.REJECTED, Trouble.WORDED, "b"),
    ]
)


@given(st.lists(FAILURE, max_size=12))
def test_five_failures_in_a_row_are_too_many_of_two_models_when_pixapi_says_so(
    row: list[tuple[Verdict, Trouble, str]],
) -> None:
    found = NO_FAILURES
    for verdict, trouble, model in row:
        found = counted(found, HEALTHY, word(verdict), trouble, model)
    bare = sum(trouble is Trouble.BARE for _, trouble, _ in row)
    models = {model for _, trouble, model in row if trouble is Trouble.WORDED}
    counts = bare + (len(row) - bare if len(models) >= 2 else 0)
    assert found.too_many is (counts >= 5)


@given(st.lists(st.sampled_from([Verdict.REJECTED, Verdict.UNKNOWN]), max_size=100))
def test_one_broken_model_and_refused_prompts_are_never_too_many(row: list[Verdict]) -> None:
    found = NO_FAILURES
    for verdict in row:
        found = counted(found, HEALTHY, word(verdict), Trouble.WORDED, "broken")
        refused = counted(NO_FAILURES, HEALTHY, word(Verdict.REJECTED), None, "m")
        assert not found.too_many
        assert refused == NO_FAILURES


@pytest.mark.parametrize(
    "verdict", [Verdict.ANSWERED, Verdict.REJECTED, Verdict.THROTTLED, Verdict.KEY_EXHAUSTED]
)
def test_a_definite_answer_ends_the_row(verdict: Verdict) -> None:
    found = NO_FAILURES
    for _ in range(4):
        found = counted(found, HEALTHY, word(Verdict.UNKNOWN), Trouble.BARE, "a")
    assert counted(found, HEALTHY, word(Verdict.NOT_SENT), None, "a") is found
    assert counted(found, HEALTHY, word(Verdict.UNKNOWN), None, "a") is found  # our own spool was full
    assert counted(found, HEALTHY, word(Verdict.ANSWERED, use=READ), None, "") is found
    assert counted(found, HEALTHY, word(verdict), None, "a") == NO_FAILURES


def test_failures_of_calls_sent_before_it_opened_do_not_count_afterwards() -> None:
    health = after(HEALTHY, broke())
    closed = looked(health, Look.ACCEPTED, NOW + 30, off=False).health
    late = word(Verdict.UNKNOWN, NOW + 40, since=NOW - 5)
    assert counted(NO_FAILURES, closed, late, Trouble.BARE, "a") is NO_FAILURES
    new = word(Verdict.UNKNOWN, NOW + 40, since=NOW + 31)
    assert counted(NO_FAILURES, closed, new, Trouble.BARE, "a").bare == 1


def test_a_key_that_only_cools_down_is_relied_on() -> None:
    assert is_relied_on(HEALTHY, NOW)
    assert is_relied_on(after(HEALTHY, throttled(30.0)), NOW + 1)
    for off in (REFUSAL, empty(), broke()):
        assert not is_relied_on(after(HEALTHY, off), NOW + 1)


# Answers, and everything together ---------------------------------------------------------------------------


def test_a_paid_answer_after_the_rest_forgets_it() -> None:
    health = after(HEALTHY, throttled(10.0))
    assert after(health, word(Verdict.ANSWERED, NOW + 9)) is health
    assert after(health, word(Verdict.ANSWERED, NOW + 11, use=READ)) is health
    assert after(health, word(Verdict.ANSWERED, NOW + 11, since=NOW + 9)) is health
    assert after(health, word(Verdict.ANSWERED, NOW + 11)) == HEALTHY


def test_a_paid_answer_does_not_end_the_rest_of_reads() -> None:
    health = after(HEALTHY, throttled(30.0, use=READ))
    found = after(health, word(Verdict.ANSWERED, NOW + 1))
    assert found.rests(READ, NOW + 29)
    assert not found.rests(PAID, NOW + 1)


@settings(max_examples=30)
@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.NOT_SENT, Verdict.UNKNOWN])
@given(
    health=st.builds(
        Health, st.floats(0, 2000), st.floats(0, 2000), st.none() | st.just(THROTTLED), st.integers(0, 9)
    ),
    use=st.sampled_from(Use),
)
def test_what_does_not_concern_the_key_changes_nothing(verdict: Verdict, health: Health, use: Use) -> None:
    assert after(health, word(verdict, use=use)) is health


@given(st.sampled_from(Use), st.floats(0, 1e6))
def test_an_answer_to_a_healthy_key_is_no_news(use: Use, now: float) -> None:
    assert after(HEALTHY, word(Verdict.ANSWERED, now, use)) is HEALTHY
    as_read = Health(paid_until=now, reads_until=now)  # what another process wrote about a healthy key
    assert after(as_read, word(Verdict.ANSWERED, now, use)) is as_read


@settings(max_examples=100)
@given(STEPS)
def test_rests_are_bounded_and_never_shortened(steps: list[Any]) -> None:
    now, history = NOW, [HEALTHY]
    for wait, use, verdict, asked, ago, trial, broken in steps:
        now += wait
        said = Word(use, verdict, now - ago, now, asked, trial, broken)
        history.append(after(history[-1], said))
        for before, found in pairwise(history[-2:]):
            assert found.paid_until <= max(now + 3600, before.paid_until)
            assert found.reads_until <= max(now + 60, before.reads_until)
            for one in Use:
                shorter = before.reason == FAILING and verdict is Verdict.THROTTLED
                assert shorter or before.until(one) <= now or found.until(one) >= before.until(one)
            refused = verdict.concerns_our_key and use is PAID
            assert found.rests(PAID, now) or not refused or now - ago < before.paid_until
            assert before.check_at is None or found.check_at is not None or before.reason == FAILING


@settings(max_examples=100)
@given(STEPS, st.lists(st.tuples(st.floats(0, 400), LOOKS), min_size=1, max_size=8))
def test_a_key_comes_back_by_the_list_alone_and_the_next_look_is_never_far(
    steps: list[Any], looks: list[tuple[float, Look]]
) -> None:
    now, health, off = NOW, HEALTHY, False
    for wait, use, verdict, asked, ago, trial, broken in steps:
        now += wait
        health = after(health, Word(use, verdict, now - ago, now, asked, trial, broken))
    for wait, look in looks:
        now += wait
        if health.check_at is None:
            return
        assert health.rests(PAID, now + 1e9)
        ruling = looked(health, look, now, off=off)
        health, off = ruling.health, ruling.off
        if off:
            assert health.check_at is not None
        if health.check_at is None:
            assert look is Look.ACCEPTED
        else:
            assert now < health.check_at <= now + 300
