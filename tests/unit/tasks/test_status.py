"""What a task's state means: for polling, and for its hold."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.credits.amount import MICRO
from gateway.credits.terms import Conclusion
from gateway.tasks.status import ABSURD, conclusion_of, cost_of, first_state, has_ended
from gateway.upstream.answers import OddCost, Submitted, TaskState, task_state

QUOTE = 8 * MICRO


def ended(status: str, cost: Decimal | OddCost | str) -> TaskState:
    found = Decimal(cost) if isinstance(cost, str) else cost
    return TaskState("t", status, None, None, found, has_result=True)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_two_words_end_a_task(status: str) -> None:
    assert has_ended(status)


@pytest.mark.parametrize(
    "status",
    [
        "submitted",
        "processing",
        "queued",
        "Completed",
        "COMPLETED",
        "completed ",
        "success",
        "Failed",
        "canceled",
    ],
)
def test_any_other_word_is_still_running(status: str) -> None:
    assert not has_ended(status)


@given(st.text(max_size=12))
def test_no_other_text_ends_a_task(status: str) -> None:
    assert has_ended(status) is (status in ("completed", "failed"))


@pytest.mark.parametrize(
    ("cost", "settled", "flags"),
    [
        ("0", 0, ()),
        ("1.5", 1_500_000, ()),
        ("8", QUOTE, ()),
        ("8.000001", QUOTE + 1, ("overrun",)),
        ("0.0000005", 1, ()),
        ("8000", 8000 * MICRO, ("overrun",)),
    ],
)
def test_a_task_settles_at_its_own_cost(cost: str, settled: int, flags: tuple[str, ...]) -> None:
    found = conclusion_of(ended("completed", cost), QUOTE)
    assert found == Conclusion(state="settled", settled=settled, estimated=False, flags=flags)


@pytest.mark.parametrize("cost", [*OddCost, "8000.000001", "1000000000"])
def test_an_odd_cost_settles_at_the_quote_flagged(cost: OddCost | str) -> None:
    found = conclusion_of(ended("completed", cost), QUOTE)
    assert found == Conclusion(state="settled", settled=QUOTE, estimated=True, flags=("odd_cost",))


@pytest.mark.parametrize("cost", [*OddCost, "0", "0.0000001"])
def test_a_failed_task_is_free(cost: OddCost | str) -> None:
    found = conclusion_of(ended("failed", cost), QUOTE)
    assert (found.state, found.settled, found.reason) == ("released", None, "the task failed")


def test_a_failed_task_with_a_cost_is_charged() -> None:
    assert conclusion_of(ended("failed", "2.5"), QUOTE) == Conclusion(state="settled", settled=2_500_000)


@given(st.integers(0, 10**12), st.decimals(0, 10**9, places=6))
def test_a_cost_is_exact_or_absurd(quote: int, cost: Decimal) -> None:
    found = cost_of(ended("completed", cost), quote)
    if found is None:
        assert cost * MICRO > max(quote, MICRO) * ABSURD
    else:
        assert Decimal(found) == cost * MICRO


def test_the_submit_answer_becomes_the_first_state() -> None:
    state = first_state(Submitted("task_1", "queued", "veo", 7, 1703884800))
    assert msgspec.json.decode(state) == {
        "id": "task_1",
        "status": "submitted",
        "model": "veo",
        "progress": 7,
        "created": 1703884800,
    }
    assert msgspec.json.decode(first_state(Submitted("t", None, None, None, None))) == {
        "id": "t",
        "status": "submitted",
        "progress": 0,
    }


@given(st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True), st.none() | st.integers(0, 100))
def test_the_first_state_reads_back_as_a_running_task(task_id: str, progress: int | None) -> None:
    found = task_state(first_state(Submitted(task_id, None, "m", progress, None)))
    assert found is not None
    assert (found.id, found.status, found.progress) == (task_id, "submitted", progress or 0)
