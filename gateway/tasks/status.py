"""What a task's state means. Pure.

Pixapi's words are taken to the letter: `completed` and `failed` end a task, every other word, in any casing,
means that it is still running.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.credits.amount import MICRO, from_decimal
from gateway.credits.terms import Conclusion
from gateway.upstream.answers import OddCost, Submitted, TaskState

FIRST = "submitted"
ENDED = frozenset({"completed", "failed"})
# More than this many times the quote is taken for a mistake of the answer, not for a price.
ABSURD = 1000


def has_ended(status: str) -> bool:
    return status in ENDED


def goes_back(before: str, now: str) -> bool:
    """Whether Pixapi's word is one that a task has already left behind: the word before is kept then."""
    return now == FIRST and before != FIRST


def first_state(submitted: Submitted) -> bytes:
    """The submit answer in task shape: what a poll shows until Pixapi has been read."""
    state: dict[str, Any] = {
        "id": submitted.id,
        "status": FIRST,
        "model": submitted.model,
        "progress": submitted.progress if submitted.progress is not None else 0,
        "created": submitted.created_at,
    }
    return msgspec.json.encode({name: value for name, value in state.items() if value is not None})


def conclusion_of(state: TaskState, quote: int) -> Conclusion:
    """How the hold of an ended task ends: settled at its real cost, or released when it failed without one.

    A cost that is null, missing, negative, not a number or absurd settles at the quote, flagged `odd_cost`.
    """
    cost = cost_of(state, quote)
    if state.status == "failed" and not cost:
        return Conclusion(state="released", reason="the task failed")
    if cost is None:
        return Conclusion(state="settled", settled=quote, estimated=True, flags=("odd_cost",))
    return Conclusion(state="settled", settled=cost, flags=("overrun",) if cost > quote else ())


def cost_of(state: TaskState, quote: int) -> int | None:
    """The micro-credits a task cost; None when `credits_cost` is odd."""
    if isinstance(state.credits_cost, OddCost):
        return None
    cost = from_decimal(state.credits_cost)
    return None if cost > max(quote, MICRO) * ABSURD else cost
