"""What the rules look at and what they say, as plain values. Amounts are micro-credits, times aware and in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

Kind = Literal[
    "quota_threshold",
    "quota_projected_overrun",
    "upstream_key_off",
    "upstream_key_exhausted",
    "upstream_keys_all_resting",
    "hold_unknown",
    "price_book_error",
    "price_drift",
    "odd_cost",
    "reconciler_behind",
    "partitions_missing",
]
Severity = Literal["info", "warning", "critical"]
State = Literal["open", "resolved"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUse:
    """A quota in its current period; `key_id` None: the whole team's; `ends_at` None: a total."""

    id: UUID
    team: str
    key_id: str | None
    period: str
    limit: int
    settled: int
    held: int
    enforce: bool
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHealth:
    """An upstream key; `rest_reason` is what keeps it from paid calls, for `rests` more seconds at least."""

    id: UUID
    label: str
    account: str
    state: str
    state_reason: str | None = None
    rest_reason: str | None = None
    rests: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownHolds:
    """How many there are (counted to a bound), and since when the oldest."""

    count: int
    oldest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CostNews:
    """The costs of one model on one day (UTC) that are odd, or not what the price book says; with the first of them."""

    kind: Literal["price_drift", "odd_cost"]
    model: str
    day: str
    count: int
    task_id: str
    cost: int | None = None
    charge: int | None = None
    quote: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFacts:
    """What only the process itself knows: why it refuses `models.toml`, and by how much it stretches task reads."""

    price_book_problems: tuple[str, ...] = ()
    stretched: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything the rules look at, as of `now`. `lag`: seconds the task that is due longest has waited. `unmade`: of
    this month and the next those that miss a partition, as YYYY-MM.

    Quotas far from every threshold may be left out, unless an alert of theirs is open.
    """

    now: datetime
    quotas: tuple[QuotaUse, ...] = ()
    keys: tuple[KeyHealth, ...] = ()
    unknown: UnknownHolds | None = None
    costs: tuple[CostNews, ...] = ()
    lag: float = 0.0
    unmade: tuple[str, ...] = ()
    own: OwnFacts = field(default_factory=OwnFacts)


Identity = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something people should hear of. What is not `firm` raises nothing, it keeps open what was raised.

    What is `gone` keeps it open only for its kind's quiet time: its subject is there, its reason is not.
    An alert is the same as another when kind, `subject` (`quota:<id>`, `model:<id>`, …) and `mark` are.
    """

    kind: Kind
    severity: Severity
    subject: str
    mark: str
    summary: str
    detail: Mapping[str, Any]
    firm: bool = True
    gone: bool = False

    @property
    def identity(self) -> Identity:
        return self.kind, self.subject, self.mark


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAlert:
    """An alert that was raised and not resolved; `seen_at` is when its reason was last there, `limit` and
    `enforce` are the quota's it was raised at."""

    id: UUID
    kind: str
    subject: str
    mark: str
    seen_at: datetime
    limit: str | None = None
    enforce: bool | None = None

    @property
    def identity(self) -> Identity:
        return self.kind, self.subject, self.mark
