"""What the admin API answers about credits: usage, holds, and the ledger's proof."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.admin.api.answers import Moment, fields_of
from gateway.credits.amount import to_decimal
from gateway.credits.holds import Attempt, HoldState, ListedHold
from gateway.credits.usage import Dimension, Statement, Sums, amounts, bound_text
from gateway.credits.verify import Difference, Proof, Repaired


class SumsAnswer(Struct, frozen=True, kw_only=True):
    """Sums of usage; `failed` requests were released or are unknown, `estimated_credits` are a part of the credits."""

    requests: int
    failed: int
    credits: Decimal
    estimated_credits: Decimal
    shadow_refused: int


class UsageRowAnswer(Struct, frozen=True, kw_only=True):
    """The sums of one combination of the dimensions that were asked for; the others are absent."""

    team: str | UnsetType = UNSET
    team_id: UUID | UnsetType = UNSET
    key: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    operation: str | UnsetType = UNSET
    day: date | UnsetType = UNSET
    requests: int
    failed: int
    credits: Decimal
    estimated_credits: Decimal
    shadow_refused: int


class UsageAnswer(Struct, frozen=True, kw_only=True):
    """Usage from (inclusive) to (exclusive); the totals are the sums of the rows."""

    start: str = msgspec.field(name="from")
    end: str = msgspec.field(name="to")
    by: list[Dimension]
    data: list[UsageRowAnswer]
    totals: SumsAnswer


class HoldAnswer(Struct, frozen=True, kw_only=True):
    """A hold: its quote, and what it was settled at. `key` is the key's public id."""

    id: UUID
    state: HoldState
    team: str
    key: str
    model: str
    operation: str
    quote: Decimal
    settled: Decimal | None
    estimated: bool
    flags: tuple[str, ...]
    task_id: str | None
    request_id: str
    created_at: Moment
    ended_at: Moment | None
    reason: str | None


class AttemptAnswer(Struct, frozen=True, kw_only=True):
    """One send; `upstream_key` is the key's label, `status` null when nothing came back."""

    number: int
    upstream_key_id: UUID
    upstream_key: str | None
    outcome: str
    status: int | None
    milliseconds: int


class RequestAnswer(HoldAnswer, frozen=True, kw_only=True):
    """A hold with its sends; `shadow_refused`: a quota that only counts had no room for it."""

    shadow_refused: bool
    attempts: list[AttemptAnswer]


class CheckedAnswer(Struct, frozen=True, kw_only=True):
    """How many of each were compared."""

    holds: int
    entries: int
    counters: int
    buckets: int
    tasks: int


class DifferenceAnswer(Struct, frozen=True, kw_only=True):
    """What does not agree."""

    kind: Literal["hold", "entries", "counter", "usage", "task"]
    subject: str
    expected: str
    found: str


class ProofAnswer(Struct, frozen=True, kw_only=True):
    """Whether entries, counters, holds, usage and task costs agree, and every difference."""

    ok: bool
    checked: CheckedAnswer
    differences: list[DifferenceAnswer]


class RepairedAnswer(Struct, frozen=True, kw_only=True):
    """How many rows were changed, made or removed."""

    counters: int
    buckets: int


class RepairAnswer(ProofAnswer, frozen=True, kw_only=True):
    """What was repaired, and the proof after it."""

    repaired: RepairedAnswer


def of_usage(found: Statement) -> UsageAnswer:
    return UsageAnswer(
        start=bound_text(found.range.start),
        end=bound_text(found.range.end),
        by=list(found.by),
        data=[UsageRowAnswer(**row.names, **amounts(row.sums)) for row in found.rows],
        totals=_of_sums(found.totals),
    )


def _of_sums(sums: Sums) -> SumsAnswer:
    return SumsAnswer(**amounts(sums))


def of_hold(hold: ListedHold) -> HoldAnswer:
    return HoldAnswer(**_of_hold(hold))


def of_request(hold: ListedHold, sent: list[Attempt]) -> RequestAnswer:
    return RequestAnswer(
        **_of_hold(hold),
        shadow_refused="shadow_refused" in hold.flags,
        attempts=[of_attempt(one) for one in sent],
    )


def of_attempt(sent: Attempt) -> AttemptAnswer:
    return AttemptAnswer(**{name: getattr(sent, name) for name in AttemptAnswer.__struct_fields__})


def _of_hold(hold: ListedHold) -> dict[str, Any]:
    found = {name: value for name, value in fields_of(hold).items() if name in HoldAnswer.__struct_fields__}
    return found | {
        "key": hold.key_id,
        "created_at": hold.placed_at,
        "quote": to_decimal(hold.quote),
        "settled": None if hold.settled is None else to_decimal(hold.settled),
    }


def of_proof(proof: Proof) -> ProofAnswer:
    return ProofAnswer(**_of_proof(proof))


def of_repair(repaired: Repaired, proof: Proof) -> RepairAnswer:
    return RepairAnswer(**_of_proof(proof), repaired=RepairedAnswer(**fields_of(repaired)))


def _of_proof(proof: Proof) -> dict[str, Any]:
    return {
        "ok": proof.ok,
        "checked": CheckedAnswer(**fields_of(proof.checked)),
        "differences": [_of_difference(one) for one in proof.differences],
    }


def _of_difference(found: Difference) -> DifferenceAnswer:
    return DifferenceAnswer(
        kind=found.kind, subject=found.subject, expected=found.expected, found=found.found
    )
