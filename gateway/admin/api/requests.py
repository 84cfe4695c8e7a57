"""The bodies and queries of the admin API. A field that is not here is refused by name.

In a PATCH only the fields that are sent change; null takes a restriction away where a field allows null.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from gateway.admin.api.fields import (
    Actor,
    Addresses,
    AlertStateName,
    Bound,
    Count,
    Credits,
    Cursor,
    DeliveryStateName,
    Dimensions,
    FormatName,
    Future,
    HoldStateName,
    Instant,
    KeyStateName,
    Kinds,
    Label,
    Models,
    Name,
    OutcomeName,
    Overlap,
    PageLimit,
    PeriodName,
    RoleName,
    ShortText,
    Slug,
    Subject,
    TimeZone,
    Truth,
    TruthText,
    UpstreamSecret,
    WebhookFormat,
    WebhookUrl,
    Weight,
)
from gateway.db.paging import DEFAULT_LIMIT


class Given(BaseModel):
    """What every body and query is: nothing but its fields."""

    # Built when first asked for: forty of them take a while, and most processes never need them.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


class Nothing(Given):
    """No field at all."""


class NewQuota(Given):
    """The first quota of a team."""

    period: PeriodName
    limit: Credits


class CreateTeam(Given):
    """A team needs a quota or `unlimited: true`. The slug defaults to one made from the name."""

    name: Name
    slug: Slug | None = None
    time_zone: TimeZone = "UTC"
    cost_center: ShortText | None = None
    allowed_models: Models | None = None
    requests_per_minute: Count | None = None
    max_in_flight: Count | None = None
    unlimited: Truth = False
    quota: NewQuota | None = Field(default=None, validate_default=True)

    @field_validator("quota")
    @classmethod
    def _one_way_or_the_other(cls, quota: NewQuota | None, info: ValidationInfo) -> NewQuota | None:
        unlimited = info.data.get("unlimited")
        if quota is None and unlimited is False:
            raise ValueError(
                "required: give quota {period, limit}, or unlimited: true for a team without one"
            )
        if quota is not None and unlimited:
            raise ValueError("must not be given together with unlimited: true")
        return quota


class PatchTeam(Given):
    """What may change in a team."""

    name: Name = Field(default_factory=str)
    slug: Slug = Field(default_factory=str)
    time_zone: TimeZone = Field(default_factory=str)
    cost_center: ShortText | None = None
    allowed_models: Models | None = None
    requests_per_minute: Count | None = None
    max_in_flight: Count | None = None
    unlimited: Truth = Field(default_factory=bool)


class PutQuota(Given):
    """A limit in credits; `enforce: false` only counts what it would have refused."""

    limit: Credits
    enforce: Truth = True


class IssueKey(Given):
    """A new team key; what is left out does not restrict it."""

    name: Name
    expires_at: Future | None = None
    allowed_models: Models | None = None
    allowed_addresses: Addresses | None = None
    requests_per_minute: Count | None = None
    max_in_flight: Count | None = None


class PatchKey(Given):
    """What may change in a team key."""

    name: Name = Field(default_factory=str)
    expires_at: Future | None = None
    allowed_models: Models | None = None
    allowed_addresses: Addresses | None = None
    requests_per_minute: Count | None = None
    max_in_flight: Count | None = None


class RotateKey(Given):
    """How long the old key goes on working; 0 revokes it at once."""

    overlap_seconds: Overlap = 86_400


class AddUpstreamKey(Given):
    """A Pixapi key for the pool; the account defaults to the label."""

    label: Label
    secret: UpstreamSecret
    account: ShortText | None = None
    weight: Weight = 1
    max_in_flight: Count | None = None


class PatchUpstreamKey(Given):
    """What may change in an upstream key."""

    label: Label = Field(default_factory=str)
    account: ShortText = Field(default_factory=str)
    weight: Weight = Field(default_factory=int)
    max_in_flight: Count | None = None


class IssueAdminToken(Given):
    """A new admin token; a `viewer` only reads."""

    name: Name
    role: RoleName


class EndSessions(Given):
    """Whose sessions end: the `subject` of the list, such as `oidc:<subject>`."""

    subject: Actor


class PageQuery(Given):
    """Which page of a list."""

    limit: PageLimit = DEFAULT_LIMIT
    after: Cursor | None = None


class KeyQuery(PageQuery):
    """Which team keys. `team` is an id or slug."""

    team: ShortText | None = None
    state: KeyStateName | None = None


class TaskQuery(PageQuery):
    """Which tasks. `team` is an id or slug."""

    team: ShortText | None = None
    status: ShortText | None = None
    ended: TruthText | None = None


class UsageQuery(Given):
    """Usage by which dimensions, from (inclusive) to (exclusive); of one `team`, an id or slug, or of all."""

    start: Bound | None = Field(default=None, alias="from")
    end: Bound | None = Field(default=None, alias="to")
    by: Dimensions = ("team",)
    team: ShortText | None = None
    format: FormatName = "json"


class HoldQuery(PageQuery):
    """Which holds, placed from (inclusive) to (exclusive). `team` is an id or slug, `key` a key's public id."""

    state: HoldStateName | None = None
    team: ShortText | None = None
    key: ShortText | None = None
    model: ShortText | None = None
    request_id: ShortText | None = None
    start: Instant | None = Field(default=None, alias="from")
    end: Instant | None = Field(default=None, alias="to")


class ResolveHold(Given):
    """How an unknown hold ends; settled without `credits` it costs its quote."""

    outcome: OutcomeName
    credits: Credits | None = None
    reason: Subject

    @field_validator("credits")
    @classmethod
    def _only_settled(cls, micro: int | None, info: ValidationInfo) -> int | None:
        if micro is not None and info.data.get("outcome") == "release":
            raise ValueError("must not be given when the hold is released")
        return micro


class AuditQuery(PageQuery):
    """Which audit entries. `team` is an id or slug; `subject_id` goes with `subject_type`."""

    subject_type: ShortText | None = None
    subject_id: Subject | None = Field(default=None, validate_default=True)
    actor: Actor | None = None
    action: ShortText | None = None
    team: ShortText | None = None

    @field_validator("subject_id")
    @classmethod
    def _of_a_type(cls, subject_id: str | None, info: ValidationInfo) -> str | None:
        if subject_id is not None and info.data.get("subject_type", "") is None:
            raise ValueError("needs subject_type beside it")
        return subject_id


class SessionQuery(PageQuery):
    """Which sessions; of every `subject` without one."""

    subject: Actor | None = None


class RemoveQuery(Given):
    """`force` removes an upstream key although tasks that only it can read have not ended."""

    force: TruthText = False


class AlertQuery(PageQuery):
    """Which alerts; all of them without a `state`."""

    state: AlertStateName | None = None


class AddWebhook(Given):
    """Where alerts are sent; without `kinds` all of them are."""

    url: WebhookUrl
    format: WebhookFormat = "standard"
    kinds: Kinds | None = None


class PatchWebhook(Given):
    """What may change in a webhook. Disabled, it gives up what it still waits for."""

    url: WebhookUrl = Field(default_factory=str)
    format: WebhookFormat = Field(default_factory=lambda: "standard")
    kinds: Kinds | None = None
    enabled: Truth = Field(default_factory=bool)


class DeliveryQuery(PageQuery):
    """Which deliveries. `webhook` is an id."""

    webhook: ShortText | None = None
    state: DeliveryStateName | None = None
