"""Who changed what: the audit entries that the changes to this history's teams, keys and quotas would have written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from benchmarks.past.calls import Call, Scene
from benchmarks.past.cast import OVERLAP, Key, PoolKey, Quota, Team, uuid7
from gateway.access.admin_tokens import Role
from gateway.credits.amount import to_text


@dataclass(frozen=True, slots=True)
class Entry:
    """An audit entry."""

    at: datetime
    actor: str
    action: str
    subject: tuple[str, str]
    detail: dict[str, Any]
    team: UUID | None = None


@dataclass(frozen=True, slots=True)
class Office:
    """The admins: two tokens, and somebody who signs in with the company's provider."""

    owner: UUID
    finance: UUID
    owned_since: datetime

    @property
    def lead(self) -> str:
        return f"admin-token:{self.owner}"

    @property
    def other(self) -> str:
        return "oidc:mara.lindqvist@example.com"

    @property
    def tokens(self) -> tuple[tuple[UUID, str, Role, datetime], ...]:
        """Id, name, role and when it was made."""
        return (
            (self.owner, "platform team", "admin", self.owned_since),
            (self.finance, "finance report", "viewer", self.owned_since + timedelta(minutes=9)),
        )


def office(scene: Scene) -> Office:
    at = scene.span.start - timedelta(days=2, hours=7)
    return Office(uuid7(scene.chance, at), uuid7(scene.chance, at + timedelta(minutes=9)), at)


def entries(scene: Scene, people: Office, calls: Sequence[Call]) -> list[Entry]:
    """Every entry, oldest first."""
    found = [
        Entry(at, "bootstrap", "admin-token.issue", ("admin-token", str(ident)), {"name": name, "role": role})
        for ident, name, role, at in people.tokens
    ]
    for one in scene.cast.pool:
        found += _pool(people, one)
    for number, team in enumerate(scene.cast.teams):
        actor = people.other if number % 3 == 1 else people.lead
        found.append(Entry(team.created_at, actor, "team.create", _of(team), _team(team), team.id))
        for key in team.keys:
            found += _key(team, key, actor)
        for quota in team.quotas:
            found += _quota(team, quota, people)
        if team.suspended_at is not None:
            change = {"suspended_at": {"from": None, "to": team.suspended_at.isoformat()}}
            found.append(Entry(team.suspended_at, people.lead, "team.suspend", _of(team), change, team.id))
    found += [_resolution(call) for call in calls if call.actor is not None and call.ended_at is not None]
    return sorted(found, key=lambda entry: entry.at)


def _of(team: Team) -> tuple[str, str]:
    return "team", str(team.id)


def _team(team: Team) -> dict[str, Any]:
    plan = team.plan
    wanted = {"name": plan.name, "slug": team.slug, "time_zone": plan.zone, "cost_center": plan.cost_center}
    return {name: value for name, value in wanted.items() if value is not None} | {
        "unlimited": plan.unlimited
    }


def _pool(people: Office, key: PoolKey) -> Iterator[Entry]:
    subject, plan = ("upstream-key", str(key.id)), key.plan
    facts = {"label": key.label, "account": plan.account, "weight": plan.weight}
    if plan.max_in_flight is not None:
        facts["max_in_flight"] = plan.max_in_flight
    yield Entry(key.created_at, people.lead, "upstream-key.add", subject, facts)
    if key.drains_at is not None:
        key.state_reason = f"by {people.other}"
        change = {"state": {"from": "active", "to": "draining"}}
        change["state_reason"] = {"from": None, "to": key.state_reason}  # type: ignore[dict-item]
        yield Entry(key.drains_at, people.other, "upstream-key.drain", subject, change)


def _key(team: Team, key: Key, actor: str) -> Iterator[Entry]:
    subject, plan = ("key", key.id), key.plan
    if key.line == key.id:  # one that replaces another is made by the other's rotation
        wanted: dict[str, Any] = {
            "name": plan.name,
            "expires_at": key.expires_at.isoformat() if key.expires_at and not key.replaced_by else None,
            "allowed_models": list(plan.models or ()) or None,
            "allowed_addresses": list(plan.addresses or ()) or None,
            "requests_per_minute": plan.requests_per_minute,
            "max_in_flight": plan.max_in_flight,
        }
        detail = {name: value for name, value in wanted.items() if value is not None}
        yield Entry(key.created_at, actor, "key.issue", subject, detail, team.id)
    if key.replaced_by is not None and key.expires_at is not None:
        change = {
            "replaced_by": {"from": None, "to": key.replaced_by},
            "expires_at": {"from": None, "to": key.expires_at.isoformat()},
        }
        yield Entry(key.expires_at - OVERLAP, actor, "key.rotate", subject, change, team.id)
    if key.revoked_at is not None:
        change = {"revoked_at": {"from": None, "to": key.revoked_at.isoformat()}}
        yield Entry(key.revoked_at, actor, "key.revoke", subject, change, team.id)


def _quota(team: Team, quota: Quota, people: Office) -> Iterator[Entry]:
    """A quota begins with another limit than it has now, if it could."""
    subject = _of(team) if quota.line is None else ("key", quota.line)
    now = {"limit": to_text(quota.limit), "enforce": quota.plan.enforce}
    first = now if quota.updated_at is None else now | {"limit": to_text(quota.earlier)}
    period = {"period": quota.plan.period}
    yield Entry(quota.created_at, people.lead, "quota.set", subject, first | period, team.id)
    if quota.updated_at is not None:
        detail = now | period | {"from": first}
        yield Entry(quota.updated_at, people.other, "quota.set", subject, detail, team.id)


def _resolution(call: Call) -> Entry:
    outcome = "release" if call.state == "released" else "settle"
    detail = {"outcome": outcome, "reason": call.reason, "quote": to_text(call.quote)}
    if call.settled is not None:
        detail["credits"] = to_text(call.settled)
    return Entry(
        call.ended_at or call.placed_at,
        call.actor or "",
        "hold.resolve",
        ("hold", str(call.id)),
        detail,
        call.team.id,
    )
