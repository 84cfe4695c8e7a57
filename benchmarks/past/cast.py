"""The plans with ids and times: teams, keys, quotas and upstream keys as their rows will have them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from benchmarks.past.plan import POOL, TEAMS, KeyPlan, PoolPlan, QuotaPlan, TeamPlan
from gateway.access.key_format import ALPHABET

OVERLAP = timedelta(days=3)
SETTING_UP = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Span:
    """The time the history is about."""

    start: datetime
    now: datetime

    def at(self, part: float) -> datetime:
        return self.start + (self.now - self.start) * part


@dataclass(slots=True, kw_only=True)
class Key:
    """A team key; calls are made with it from `since` to `until`."""

    id: str
    plan: KeyPlan
    created_at: datetime
    since: datetime
    until: datetime
    line: str  # the first key of its rotations
    digest: bytes
    last4: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    replaced_by: str | None = None
    last_used_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Quota:
    """A quota; its limit in micro-credits is known when the calls are, and the `earlier` one, until `updated_at`."""

    id: UUID
    plan: QuotaPlan
    line: str | None
    created_at: datetime
    limit: int = 0
    earlier: int = 0
    updated_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Team:
    """A team with what belongs to it."""

    id: UUID
    slug: str
    plan: TeamPlan
    created_at: datetime
    suspended_at: datetime | None = None
    keys: list[Key] = field(default_factory=list)
    quotas: list[Quota] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class PoolKey:
    """An upstream key; from `drains_at` on no paid calls go through it."""

    id: UUID
    label: str
    plan: PoolPlan
    secret: str
    created_at: datetime
    drains_at: datetime | None
    state_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Cast:
    """Everybody."""

    teams: tuple[Team, ...]
    pool: tuple[PoolKey, ...]


def uuid7(chance: Random, at: datetime) -> UUID:
    """A UUIDv7 of this instant that is the same for the same chance."""
    stamp, tail = round(at.timestamp() * 1000), chance.getrandbits(74)
    return UUID(
        int=(stamp << 80) | (0x7 << 76) | ((tail >> 62) << 64) | (0b10 << 62) | tail & ((1 << 62) - 1)
    )


def word(chance: Random, length: int) -> str:
    return "".join(chance.choices(ALPHABET, k=length))


def cast(chance: Random, span: Span, taken: Collection[str]) -> Cast:
    """Everybody with ids and times; a slug or label that is `taken` gets a number."""
    pool = tuple(_pool_key(chance, span, plan, number, taken) for number, plan in enumerate(POOL))
    return Cast(tuple(_team(chance, span, plan, number, taken) for number, plan in enumerate(TEAMS)), pool)


def _free(name: str, taken: Collection[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _pool_key(chance: Random, span: Span, plan: PoolPlan, number: int, taken: Collection[str]) -> PoolKey:
    created = span.start - SETTING_UP - timedelta(hours=5 - number)
    return PoolKey(
        id=uuid7(chance, created),
        label=_free(plan.label, taken),
        plan=plan,
        secret=f"sk_{plan.account}_{word(chance, 24)}",  # what the sandbox takes for a key, too
        created_at=created,
        drains_at=None if plan.drains is None else span.at(plan.drains),
    )


def _team(chance: Random, span: Span, plan: TeamPlan, number: int, taken: Collection[str]) -> Team:
    created = span.start - SETTING_UP + timedelta(hours=number, minutes=chance.randrange(50))
    team = Team(id=uuid7(chance, created), slug=_free(plan.slug, taken), plan=plan, created_at=created)
    if plan.suspended is not None:
        team.suspended_at = span.at(plan.suspended)
    for place, key in enumerate(plan.keys):
        team.keys += _keys(chance, span, key, created + timedelta(minutes=4 + 3 * place))
    for quota in plan.quotas:
        line = _line(team, quota.key)
        made = created + timedelta(seconds=0 if line is None else 1800)
        team.quotas.append(Quota(id=uuid7(chance, made), plan=quota, line=line, created_at=made))
    return team


def _keys(chance: Random, span: Span, plan: KeyPlan, first: datetime) -> Iterator[Key]:
    """One key, or the two of a rotation."""
    created = first if plan.since == 0 else span.at(plan.since)
    ends = span.at(plan.until)
    if plan.fate == "rotating":
        ends = span.now - timedelta(days=1, hours=4)
    key = _key(chance, plan, created, (created, span.now))
    if plan.fate in ("rotating", "replaced"):
        other = _key(chance, plan, ends, (ends, span.now), key.line)
        key.replaced_by, key.expires_at = other.id, ends + OVERLAP
        key.until = min(span.now, ends + OVERLAP * 0.6)
        yield other
    elif plan.fate == "expired":
        key.expires_at = key.until = ends
    elif plan.fate == "revoked":
        key.revoked_at = key.until = ends
    yield key


def _key(
    chance: Random, plan: KeyPlan, at: datetime, used: tuple[datetime, datetime], line: str | None = None
) -> Key:
    ident = word(chance, 10)
    return Key(
        id=ident,
        plan=plan,
        created_at=at,
        since=used[0],
        until=used[1],
        line=line or ident,
        digest=chance.randbytes(32),  # of a text that nobody knows
        last4=word(chance, 4),
    )


def _line(team: Team, name: str | None) -> str | None:
    return next((key.line for key in team.keys if key.plan.name == name), None)
