"""What the admin API answers, as schemas. Credits are exact decimals; times are ISO 8601 in UTC; secrets are absent,
save in the two answers that hand out a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from gateway.access.admin_tokens import AdminToken, Role
from gateway.access.listed_sessions import ListedSession
from gateway.access.team_keys import KeyState, TeamKey
from gateway.access.teams import Team
from gateway.alerts.facts import Kind, Severity
from gateway.alerts.facts import State as AlertState
from gateway.alerts.records import Alert
from gateway.credits.amount import to_decimal
from gateway.credits.quotas import Period, Quota
from gateway.db.audit_listing import AuditEntry
from gateway.db.paging import Page
from gateway.pool.upstream_keys import KeyState as UpstreamKeyState
from gateway.pool.upstream_keys import UpstreamKey
from gateway.tasks.listing import ListedTask

T = TypeVar("T")
S = TypeVar("S")
Moment = Annotated[datetime, Meta(tz=True)]
_ENCODER = msgspec.json.Encoder(decimal_format="number")
Secret = Annotated[str, Meta(description="Shown this once; keep it.")]


class Listing(Struct, Generic[T], frozen=True):
    """One page, newest first; `next` goes into `after` for the page behind it."""

    data: list[T]
    has_more: bool
    next: str | None


class QuotaAnswer(Struct, frozen=True, kw_only=True):
    """A limit in credits for a period; `enforce: false` only counts."""

    scope: Literal["team", "key"]
    period: Period
    limit: Decimal
    enforce: bool
    created_at: Moment
    updated_at: Moment


class TeamAnswer(Struct, frozen=True, kw_only=True):
    """A team with its own quotas."""

    id: UUID
    slug: str
    name: str
    state: Literal["active", "suspended"]
    time_zone: str
    cost_center: str | None
    allowed_models: tuple[str, ...] | None
    requests_per_minute: int | None
    max_in_flight: int | None
    unlimited: bool
    quotas: list[QuotaAnswer]
    suspended_at: Moment | None
    created_at: Moment


class KeyAnswer(Struct, frozen=True, kw_only=True):
    """A team key. `rotated` ones work until `expires_at`; `prefix` and `last4` are the ends of its text."""

    id: str
    team: str
    team_id: UUID
    name: str
    prefix: str
    last4: str
    state: KeyState
    allowed_models: tuple[str, ...] | None
    allowed_addresses: tuple[str, ...] | None
    requests_per_minute: int | None
    max_in_flight: int | None
    replaced_by: str | None
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None
    created_at: Moment


class IssuedKeyAnswer(KeyAnswer, frozen=True, kw_only=True):
    """A new team key with its whole text."""

    secret: Secret


class UpstreamKeyAnswer(Struct, frozen=True, kw_only=True):
    """A key of the pool; its secret is never answered. At `next_check_at` Pixapi's model list is asked whether the
    key works; until it says so, the key rests."""

    id: UUID
    label: str
    account: str
    last4: str
    weight: int
    max_in_flight: int | None
    state: UpstreamKeyState
    state_reason: str | None
    state_changed_at: Moment
    paid_rests_until: Moment | None
    reads_rest_until: Moment | None
    rest_reason: str | None
    next_check_at: Moment | None
    created_at: Moment


class TaskAnswer(Struct, frozen=True, kw_only=True):
    """A task; `credits_cost` is what Pixapi named, once it has ended."""

    id: str
    team: str
    team_id: UUID
    key_id: str
    hold_id: UUID
    upstream_key_id: UUID
    model: str
    operation: str
    status: str
    credits_cost: Decimal | None
    failed_reads: int
    created_at: Moment
    read_at: Moment | None
    ended_at: Moment | None


class AuditAnswer(Struct, frozen=True, kw_only=True):
    """One change."""

    id: UUID
    actor: str
    action: str
    subject_type: str
    subject_id: str
    team_id: UUID | None
    detail: Mapping[str, Any]
    made_at: Moment


class AdminTokenAnswer(Struct, frozen=True, kw_only=True):
    """An admin token."""

    id: UUID
    name: str
    role: Role
    last4: str
    last_used_at: Moment | None
    revoked_at: Moment | None
    created_at: Moment


class SessionAnswer(Struct, frozen=True, kw_only=True):
    """A sign-in of a browser. `subject` is the `actor` of its audit entries; the list has living ones only."""

    id: UUID
    subject: str
    name: str
    role: Role
    created_at: Moment
    last_seen_at: Moment
    ended_at: Moment | None


class IssuedAdminTokenAnswer(AdminTokenAnswer, frozen=True, kw_only=True):
    """A new admin token with its whole text."""

    secret: Secret


class DatabaseAnswer(Struct, frozen=True, kw_only=True):
    """Whether the database answers, and its migration."""

    ok: bool
    revision: str | None


class CountsAnswer(Struct, frozen=True, kw_only=True):
    """How much there is: keys that work, upstream keys by state, tasks and holds that have not ended.

    `open_holds` are held or unknown; `unknown_holds` of them wait for an admin's word.
    """

    teams: int
    keys: int
    upstream_keys: dict[str, int]
    open_tasks: int
    open_holds: int
    unknown_holds: int


class AlertAnswer(Struct, frozen=True, kw_only=True):
    """An alert. `subject` is what it is about, such as `quota:<id>`; `detail` holds amounts as text."""

    id: UUID
    kind: Kind
    severity: Severity
    state: AlertState
    subject: str
    summary: str
    detail: Mapping[str, Any]
    raised_at: Moment
    resolved_at: Moment | None


class StatusAnswer(Struct, frozen=True, kw_only=True):
    """The gateway's state; `counts` and `alerts` are null while the database does not answer. `alerts` are the newest
    100 that are open."""

    version: str
    database: DatabaseAnswer
    counts: CountsAnswer | None
    alerts: list[AlertAnswer] | None


class CsvAnswer(Struct, frozen=True):
    """An answer that is a table instead of JSON; `name` is what a browser saves it as."""

    name: str
    text: str


def encode(answer: object) -> bytes:
    """An answer as JSON, credits as exact numbers."""
    return _ENCODER.encode(answer)


def listing(page: Page[S], answer: Callable[[S], T]) -> Listing[T]:
    """A page as it is answered."""
    return Listing([answer(item) for item in page.items], page.next is not None, page.next)


def of_quota(quota: Quota) -> QuotaAnswer:
    return QuotaAnswer(
        scope="team" if quota.key_id is None else "key",
        period=quota.period,
        limit=to_decimal(quota.limit_micro),
        enforce=quota.enforce,
        created_at=quota.created_at,
        updated_at=quota.updated_at,
    )


def of_team(team: Team, quotas: list[Quota]) -> TeamAnswer:
    return TeamAnswer(
        **fields_of(team),
        state="active" if team.suspended_at is None else "suspended",
        quotas=[of_quota(quota) for quota in quotas],
    )


def of_key(key: TeamKey, now: datetime) -> KeyAnswer:
    return KeyAnswer(**fields_of(key), prefix=key.prefix, state=key.state(now))


def of_issued_key(key: TeamKey, secret: str, now: datetime) -> IssuedKeyAnswer:
    return IssuedKeyAnswer(**fields_of(key), prefix=key.prefix, state=key.state(now), secret=secret)


def of_upstream_key(key: UpstreamKey) -> UpstreamKeyAnswer:
    return UpstreamKeyAnswer(**fields_of(key))


def of_task(task: ListedTask) -> TaskAnswer:
    cost = None if task.credits_cost is None else to_decimal(task.credits_cost)
    return TaskAnswer(**(fields_of(task) | {"credits_cost": cost}))


def of_audit_entry(entry: AuditEntry) -> AuditAnswer:
    return AuditAnswer(**fields_of(entry))


def of_alert(alert: Alert) -> AlertAnswer:
    return AlertAnswer(**fields_of(alert), state=alert.state)


def of_admin_token(token: AdminToken) -> AdminTokenAnswer:
    return AdminTokenAnswer(**fields_of(token))


def of_session(session: ListedSession) -> SessionAnswer:
    return SessionAnswer(**fields_of(session))


def of_issued_admin_token(token: AdminToken, secret: str) -> IssuedAdminTokenAnswer:
    return IssuedAdminTokenAnswer(**fields_of(token), secret=secret)


def fields_of(item: Any) -> dict[str, Any]:
    """A dataclass's attributes by name."""
    return {name: getattr(item, name) for name in item.__dataclass_fields__}
