"""What the ledger's verbs are told and what they answer: values, and how they go to Postgres. Pure.

Amounts are micro-credits. An item is one verb of a batch, as the SQL functions take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

Item = dict[str, Any]
FIRST_TENTH: Final = 10  # no projection from less than one part in so many of a period


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeatable:
    """How a repeat of the call is known: by its Idempotency-Key, or else by its fingerprint; for `lives` seconds.

    With `joinable` it is not placed beside an identical call that runs, that ended less than so many seconds ago, or
    whose answer arrived less than `grace` seconds ago; with `number` only if that was not taken by this retry's number.
    """

    idempotency_key: str | None
    fingerprint: bytes
    lives: float
    joinable: float | None = None
    grace: float = 0.0
    number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a hold is placed for; `quote` in micro-credits is the most the call is expected to cost, `charge` what the
    price book says it costs, None without a price."""

    team_id: UUID
    key_id: str
    request_id: str
    operation: str
    model: str
    quote: int
    charge: int | None = None
    repeatable: Repeatable | None = None
    team: str = field(default="", compare=False)  # its slug, for metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A hold that stands; `remaining` micro-credits on the tightest enforced quota, None without one."""

    id: UUID
    remaining: int | None
    shadow_refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SentVia:
    """One send of the call, kept with its hold."""

    upstream_key_id: UUID
    outcome: str
    status: int | None
    milliseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """The task Pixapi accepted the call as; `body` is its first state in task shape."""

    id: str
    upstream_key_id: UUID
    status: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """How a hold ends: `state` settled (with micro-credits), released or unknown."""

    state: str
    settled: int | None = None
    estimated: bool = False
    flags: tuple[str, ...] = ()
    reason: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What an end changed: nothing when the hold had ended before; `remaining` as in `Placed`."""

    changed: bool
    remaining: int | None


def place_item(hold_id: UUID, order: Order) -> Item:
    item: Item = {
        "id": str(hold_id),
        "team": str(order.team_id),
        "key": order.key_id,
        "request": order.request_id,
        "operation": order.operation,
        "model": order.model,
        "quote": order.quote,
    }
    if order.repeatable is None:
        return item
    item |= {
        "idempotency_key": order.repeatable.idempotency_key,
        "fingerprint": order.repeatable.fingerprint.hex(),
        "lives": order.repeatable.lives,
    }
    if order.repeatable.joinable is None:
        return item
    joins = order.repeatable
    return item | {"joinable": joins.joinable, "grace": joins.grace, "number": joins.number}


def bind_item(hold_id: UUID, order: Order, task: NewTask, sent: Sequence[SentVia]) -> Item:
    return {
        "id": str(hold_id),
        "team": str(order.team_id),
        "key": order.key_id,
        "operation": order.operation,
        "model": order.model,
        "task": task.id,
        "upstream_key": str(task.upstream_key_id),
        "status": task.status,
        "body": task.body,  # JSON has no bytes: it goes as base64
        "charge": order.charge,
        "quote": None if order.charge is None else order.quote,
        "sent": _sends(sent),
    }


def end_item(
    hold_id: UUID, conclusion: Conclusion, sent: Sequence[SentVia] = (), team_id: UUID | None = None
) -> Item:
    return {
        "id": str(hold_id),
        "team": None if team_id is None else str(team_id),
        "state": conclusion.state,
        "settled": conclusion.settled,
        "estimated": conclusion.estimated,
        "flags": list(conclusion.flags),
        "reason": conclusion.reason,
        "actor": conclusion.actor,
        "sent": _sends(sent),
    }


def _sends(sent: Sequence[SentVia]) -> list[Item]:
    return [
        {
            "number": number,
            "upstream_key": str(one.upstream_key_id),
            "outcome": one.outcome,
            "status": one.status,
            "milliseconds": one.milliseconds,
        }
        for number, one in enumerate(sent, start=1)
    ]
