"""What happened to one request, told in order from what was written down. Pure.

A story is made for a hold, for a refusal, or for both when the refused request had placed a hold. Its steps say what
was found out and when; the summary says how it ended and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from gateway.access.refusals import KeptRefusal
from gateway.access.team_keys import TeamKey
from gateway.access.teams import Team
from gateway.admin import wording
from gateway.credits.amount import to_text
from gateway.credits.history import CountedOn, Entry
from gateway.credits.holds import Attempt, ListedHold
from gateway.db.audit_listing import AuditEntry
from gateway.proxy.refused import REPLAYED
from gateway.repeats.records import Repeatability
from gateway.tasks.listing import ListedTask

Outcome = Literal["ok", "refused", "failed", "unknown", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that is known of one request; of `key` and `team` what they are now."""

    hold: ListedHold | None = None
    refusal: KeptRefusal | None = None
    first: ListedHold | None = None  # the hold of the call that a repeat joined
    key: TeamKey | None = None
    team: Team | None = None
    attempts: Sequence[Attempt] = ()
    entries: Sequence[Entry] = ()
    quotas: Sequence[CountedOn] = ()
    task: ListedTask | None = None
    resolutions: Sequence[AuditEntry] = ()
    repeated: Repeatability | None = None

    @property
    def at(self) -> datetime:
        """When the request came, as nearly as it is known."""
        if self.hold is not None:
            return self.hold.placed_at
        if self.refusal is None:
            raise ValueError("neither a hold nor a refusal")
        return self.refusal.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened or was checked; `detail` is a sentence or two."""

    at: datetime
    step: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The steps in order, and how it ended in a sentence or two."""

    summary: str
    steps: tuple[Step, ...] = field(default=())


def told(facts: Facts) -> Story:
    """The story of one request."""
    steps = [*_access(facts), *_refused(facts)]
    if facts.hold is not None:
        steps += _held(facts, facts.hold)
    if facts.refusal is not None and facts.hold is not None:
        steps.append(_answered(facts.refusal))
    return Story(summary=wording.summary(facts.hold, facts.refusal, facts.task), steps=tuple(steps))


# Who asked, and what was checked before a hold --------------------------------------------------------------


def _access(facts: Facts) -> Iterator[Step]:
    refusal, key = facts.refusal, facts.key
    if key is not None:
        state = key_state(key, facts.at)
        bad = refusal is not None and refusal.team_id is None and refusal.status == 401
        text = f"Key '{key.name}' ({key.prefix}_…{key.last4}) of the team '{key.team}', {state}."
        if bad:
            text += f" {wording.why_not_accepted(state)}"
        yield Step(at=facts.at, step="key", outcome="refused" if bad else "ok", detail=text)
    elif refusal is not None:
        bad = refusal.team_id is None
        text = wording.no_key(refusal.key_id, str(refusal.detail.get("key", "")))
        yield Step(at=facts.at, step="key", outcome="refused" if bad else "note", detail=text)
    team = facts.team
    if team is not None and team.suspended_at is not None:
        text = f"The team is suspended since {wording.moment(team.suspended_at)}."
        before = team.suspended_at <= facts.at
        yield Step(at=facts.at, step="team", outcome="refused" if before else "note", detail=text)


def key_state(key: TeamKey, at: datetime) -> str:
    """In words, the state the key was in at a moment, and what became of it since."""
    if at < key.created_at:
        return f"not issued yet (issued {wording.moment(key.created_at)})"
    if key.revoked_at is not None:
        when = wording.moment(key.revoked_at)
        return f"revoked since {when}" if key.revoked_at <= at else f"active then, revoked {when}"
    if key.expires_at is not None:
        when = wording.moment(key.expires_at)
        return f"expired since {when}" if key.expires_at <= at else f"active, until {when}"
    return "active"


def _refused(facts: Facts) -> Iterator[Step]:
    refusal = facts.refusal
    if refusal is None:
        return
    detail = refusal.detail
    if facts.hold is None and refusal.model is not None:
        yield Step(at=refusal.at, step="asked", outcome="note", detail=_asked(refusal))
    if (repeats := detail.get("repeats")) is not None:
        yield _repeat(refusal, str(repeats), facts.first)
    if (limit := detail.get("limit")) is not None:
        yield Step(at=refusal.at, step="limits", outcome="refused", detail=wording.limit(limit))
    if (quota := detail.get("quota")) is not None:
        yield Step(at=refusal.at, step="quota", outcome="refused", detail=wording.arithmetic(quota))
    if facts.hold is None and refusal.reason != REPLAYED:
        yield _answered(refusal)


def _answered(refusal: KeptRefusal) -> Step:
    said = refusal.message or wording.NOT_KEPT
    where = f" from {refusal.client}" if refusal.client else ""
    text = f"{refusal.route}{where} was answered {refusal.status} {refusal.reason}: {said}"
    return Step(at=refusal.at, step="answer", outcome="refused", detail=text)


def _asked(refusal: KeptRefusal) -> str:
    asked: Mapping[str, Any] = refusal.detail.get("asked", {})
    what = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asked.items())
    quota = refusal.detail.get("quota")
    price = f"; the price book says {quota['needed']} credits" if quota is not None else ""
    return f"Model {refusal.model}{f' ({what})' if what else ''}{price}."


def _repeat(refusal: KeptRefusal, hold_id: str, first: ListedHold | None) -> Step:
    whose = f"the hold {hold_id}"
    if first is not None:
        whose += f" (request id {first.request_id}, {first.state})"
    ok = refusal.reason == REPLAYED
    text = f"This repeats an earlier call, {whose}: it got that call's answer, and cost nothing."
    return Step(at=refusal.at, step="repeat", outcome="ok" if ok else "failed", detail=text)


# The hold and its end ---------------------------------------------------------------------------------------


def _held(facts: Facts, hold: ListedHold) -> Iterator[Step]:
    price = f"{hold.model} by {hold.operation} was quoted at {to_text(hold.quote)} credits by the price book."
    yield Step(at=hold.placed_at, step="price", outcome="ok", detail=price)
    shadow = "shadow_refused" in hold.flags
    yield Step(
        at=hold.placed_at,
        step="hold",
        outcome="note" if shadow else "ok",
        detail=f"Hold {hold.id}: {wording.counted(facts.quotas, hold.placed_at)}"
        + (f" {wording.FLAGS['shadow_refused']}" if shadow else ""),
    )
    if facts.repeated is not None:
        yield Step(
            at=hold.placed_at,
            step="repeats",
            outcome="note",
            detail=wording.repeats(
                by_key=facts.repeated.by_key, state=facts.repeated.state, taken=facts.repeated.taken
            ),
        )
    yield from _sends(facts.attempts, hold.placed_at)
    if not facts.attempts and hold.state != "held":
        yield Step(at=hold.placed_at, step="attempt", outcome="note", detail="No send is on record.")
    if facts.task is not None:
        yield _task(facts.task)
    yield from _end(facts, hold)


def _sends(attempts: Sequence[Attempt], placed_at: datetime) -> Iterator[Step]:
    """They are written down together when the last has ended, so each began by what it and those after it took."""
    left = sum(attempt.milliseconds for attempt in attempts)
    for attempt in attempts:
        began = attempt.recorded_at - timedelta(milliseconds=left)
        left -= attempt.milliseconds
        yield _sent(attempt, max(began, placed_at))


def _sent(attempt: Attempt, at: datetime) -> Step:
    key = attempt.upstream_key or f"a key that is gone ({attempt.upstream_key_id})"
    status = "no answer" if attempt.status is None else f"status {attempt.status}"
    outcome: Outcome = wording.ATTEMPT_OUTCOMES.get(attempt.outcome, "failed")
    return Step(
        at=at,
        step="attempt",
        outcome=outcome,
        detail=f"Send {attempt.number} with the upstream key '{key}': {attempt.outcome}, {status}, "
        f"{attempt.milliseconds} ms. {wording.ATTEMPTS.get(attempt.outcome, '')}".rstrip(),
    )


def _task(task: ListedTask) -> Step:
    read = "not read yet" if task.read_at is None else f"last read {wording.moment(task.read_at)}"
    failed = f", the last {task.failed_reads} reads failed" if task.failed_reads else ""
    if task.ended_at is None:
        text = f"Task {task.id} is {task.status}; {read}{failed}."
    else:
        cost = (
            "no usable credits_cost" if task.credits_cost is None else f"{to_text(task.credits_cost)} credits"
        )
        text = f"Task {task.id} ended as {task.status} with {cost}."
    outcome: Outcome = "note" if task.ended_at is None else "ok" if task.status == "completed" else "failed"
    return Step(at=task.ended_at or task.created_at, step="task", outcome=outcome, detail=text)


def _end(facts: Facts, hold: ListedHold) -> Iterator[Step]:
    by_hand = {entry.subject_id: entry for entry in facts.resolutions}.get(str(hold.id))
    overrun = sum(entry.settled for entry in facts.entries if entry.kind == "overrun")
    at = hold.ended_at or _last_known(facts, hold)
    outcome: Outcome = wording.STATE_OUTCOMES[hold.state]
    text = wording.ending(hold, overrun, has_task=facts.task is not None)
    yield Step(at=at, step="end", outcome=outcome, detail=text)
    if by_hand is not None:
        reason = by_hand.detail.get("reason", "")
        text = f"{by_hand.actor} resolved the hold ({by_hand.detail.get('outcome')}): {reason}"
        yield Step(at=by_hand.made_at, step="resolved", outcome="note", detail=text)


def _last_known(facts: Facts, hold: ListedHold) -> datetime:
    """The latest moment at which something is known of a hold that has not ended."""
    moments = [hold.placed_at, *(entry.made_at for entry in facts.entries)]
    moments += [attempt.recorded_at for attempt in facts.attempts]
    if facts.task is not None:
        moments.append(facts.task.ended_at or facts.task.created_at)
    return max(moments)


def holds_told_of(refusals: Sequence[KeptRefusal]) -> set[UUID]:
    """The holds that the refusals point to as the call they repeat."""
    return {UUID(str(one.detail["repeats"])) for one in refusals if "repeats" in one.detail}
