"""What the admin API answers about one request id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from gateway.access.refusals import KeptRefusal
from gateway.admin import story
from gateway.admin.api.answers import Moment, TaskAnswer, of_task
from gateway.admin.api.credit_answers import AttemptAnswer, HoldAnswer, of_attempt, of_hold
from gateway.admin.story import Facts


class StepAnswer(Struct, frozen=True, kw_only=True):
    """One thing that happened or was checked, in a sentence or two."""

    at: Moment
    step: str
    outcome: Literal["ok", "refused", "failed", "unknown", "note"]
    detail: str


class RefusalAnswer(Struct, frozen=True, kw_only=True):
    """What was answered instead of a call, kept for a day. `key` without a `team` was not accepted; `reason` is
    `replayed` for a repeat that got the answer of an earlier call."""

    at: Moment
    team: str | None
    key: str | None
    route: str
    operation: str | None
    model: str | None
    status: int
    reason: str
    message: str | None
    detail: Mapping[str, Any]
    client: str | None


class StoryAnswer(Struct, frozen=True, kw_only=True):
    """One request: what happened in order, and the records that say so."""

    summary: str
    steps: list[StepAnswer]
    hold: HoldAnswer | None
    refusal: RefusalAnswer | None
    task: TaskAnswer | None
    attempts: list[AttemptAnswer]


class ExplainAnswer(StoryAnswer, frozen=True, kw_only=True):
    """The newest request with this id; `earlier` are those before it that had the same, newest first."""

    request_id: str
    earlier: list[StoryAnswer]


def of_facts(facts: Facts) -> StoryAnswer:
    found = story.told(facts)
    return StoryAnswer(
        summary=found.summary,
        steps=[
            StepAnswer(at=step.at, step=step.step, outcome=step.outcome, detail=step.detail)
            for step in found.steps
        ],
        hold=None if facts.hold is None else of_hold(facts.hold),
        refusal=None if facts.refusal is None else _of_refusal(facts.refusal),
        task=None if facts.task is None else of_task(facts.task),
        attempts=[of_attempt(one) for one in facts.attempts],
    )


def _of_refusal(refusal: KeptRefusal) -> RefusalAnswer:
    wanted = RefusalAnswer.__struct_fields__
    found = {name: getattr(refusal, name) for name in wanted if name != "key"}
    return RefusalAnswer(**found, key=refusal.key_id)
