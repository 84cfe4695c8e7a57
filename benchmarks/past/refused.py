"""The refusals of the last day, in the words and with the facts that the gateway keeps of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from benchmarks.past.calls import Call, Scene, price
from benchmarks.past.cast import Key, Team, uuid7
from benchmarks.past.plan import FLASH, PRO, Wish
from benchmarks.past.standing import Counter
from gateway import errors
from gateway.credits.amount import to_text
from gateway.proxy.generation import Operation

# From the dearest: what a team that is nearly out of credits asks for and does not get.
DEAR = (
    Wish("kling", "async.videos.generations", 1, seconds=(60,)),
    Wish("kling", "async.videos.generations", 1, seconds=(30,)),
    Wish("veo", "async.videos.generations", 1, seconds=(60,)),
    Wish(PRO, "images.generations", 1, (10,), "4096x4096"),
    Wish(PRO, "images.generations", 1, (4,), "4096x4096"),
    Wish(PRO, "images.generations", 1, (2,)),
    Wish(PRO, "images.generations", 1, (1,)),
)
UNPRICED = "flux-2-ultra"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A row of `refusals`; `asked` is the model and what prices the call."""

    id: UUID
    at: datetime
    status: int
    reason: str
    message: str
    detail: dict[str, Any]
    team: Team | None = None
    key_id: str | None = None
    asked: tuple[Wish, str] | None = None
    client: str = "10.42.7.19"

    @property
    def row(self) -> Sequence[object]:
        """As the columns of the table have it, `detail` aside."""
        operation = Operation.IMAGES_GENERATIONS if self.asked is None else Operation(self.asked[0].operation)
        return (
            self.id,
            f"req_{self.id.hex}",
            self.at,
            None if self.team is None else self.team.id,
            self.key_id,
            f"POST {operation.path}",
            operation.value,
            None if self.asked is None else self.asked[1],
            self.status,
            self.reason,
            self.message,
            self.client,
        )


def refusals(scene: Scene, running: Sequence[Counter]) -> list[Refused]:
    """Some of each kind, oldest first; `running` are the counters of current periods."""
    found = [*_over_quota(scene, running), *_too_fast(scene), *_not_accepted(scene), *_not_allowed(scene)]
    return sorted(found, key=lambda one: one.at)


def _moments(scene: Scene, number: int, hours: float = 22.0) -> Iterator[tuple[UUID, datetime]]:
    for _ in range(number):
        at = scene.span.now - timedelta(seconds=scene.chance.uniform(90, hours * 3600))
        yield uuid7(scene.chance, at), at


def _over_quota(scene: Scene, running: Sequence[Counter]) -> Iterator[Refused]:
    """402s with the arithmetic of their moment; only where there was truly no room."""
    for counter in running:
        quota, team = counter.quota, counter.team
        if not quota.plan.enforce or quota.plan.used is None or quota.plan.used < 0.9:
            continue
        keys = [key for key in team.keys if quota.line in (None, key.line) and key.until == scene.span.now]
        for number, (ident, at) in enumerate(_moments(scene, 6, 9.0)):
            if at <= counter.period.starts_at or not keys:
                continue
            settled, held = counter.standing(at)
            remaining = quota.limit - settled - held
            key = keys[number % len(keys)]
            fitting = [wish for wish in _may_ask(key) if _needed(scene, wish) > remaining]
            if fitting:
                wish = fitting[number % len(fitting)]
                yield _no_room(scene, (ident, at), counter, (key, wish, settled, held))


def _may_ask(key: Key) -> Iterator[Wish]:
    return (wish for wish in DEAR if key.plan.models is None or wish.model in key.plan.models)


def _needed(scene: Scene, wish: Wish) -> int:
    return price(scene.book, wish, wish.images[0], wish.seconds[0] if wish.seconds else None).hold


def _no_room(
    scene: Scene, when: tuple[UUID, datetime], counter: Counter, what: tuple[Key, Wish, int, int]
) -> Refused:
    key, wish, settled, held = what
    quota, needed = counter.quota, _needed(scene, wish)
    scope = "team" if quota.line is None else "key"
    resets = counter.period.ends_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    names = {"day": "daily", "week": "weekly", "month": "monthly"}
    facts = {
        "scope": scope,
        "period": quota.plan.period,
        "limit": to_text(quota.limit),
        "settled": to_text(settled),
        "held": to_text(held),
        "needed": to_text(needed),
        "remaining": to_text(quota.limit - settled - held),
        "resets_at": resets,
    }
    message = (
        f"This call needs {to_text(needed)} credits, more than the {scope}'s {names[quota.plan.period]} quota has "
        f"left: limit {facts['limit']}, used {facts['settled']}, held {facts['held']}, resets {resets}. Nothing was "
        "sent; the platform team can raise the quota."
    )
    return Refused(
        id=when[0],
        at=when[1],
        status=402,
        reason="quota_exceeded",
        message=message,
        detail={"quota": facts, "asked": asked(wish)},
        team=counter.team,
        key_id=key.id,
        asked=(wish, wish.model),
    )


def asked(wish: Wish) -> dict[str, Any]:
    """What prices the call, as it is kept."""
    found: dict[str, Any] = {"images": wish.images[0]}
    if wish.size is not None:
        found["size_class"] = "4k"
    if wish.seconds:
        found["seconds"] = str(wish.seconds[0])
    return found


def _live(scene: Scene) -> Iterator[tuple[Team, Key]]:
    for team in scene.cast.teams:
        for key in team.keys:
            if team.suspended_at is None and key.until == scene.span.now and key.plan.share:
                yield team, key


def _too_fast(scene: Scene) -> Iterator[Refused]:
    for team, key in _live(scene):
        limits = {
            "requests_per_minute": key.plan.requests_per_minute,
            "calls_in_flight": key.plan.max_in_flight,
        }
        for by, most in limits.items():
            if most is None:
                continue
            wish = next(
                one for one in team.plan.wishes if key.plan.models is None or one.model in key.plan.models
            )
            rest = f"has used up its requests_per_minute. Paid calls are limited to {most} a minute. Nothing was sent; "
            rest += "try again in 2s, spread them, or ask the platform team for more."
            if by == "calls_in_flight":
                rest = f"has as many paid calls under way as its max_in_flight allows: {most}. Nothing was sent; try "
                rest += "again when one has ended, or ask the platform team for more."
            limit = {"scope": "key", "by": by, "limit": most, "lane": "paid"}
            for ident, at in _moments(scene, 3):
                wait = scene.chance.randrange(120, 2000)
                yield Refused(
                    id=ident,
                    at=at,
                    status=429,
                    reason=by,
                    message=f"The key '…' ({key.id}) {rest}",
                    detail={"limit": limit, "retry_after_ms": wait, "asked": asked(wish)},
                    team=team,
                    key_id=key.id,
                    asked=(wish, wish.model),
                )


def _not_accepted(scene: Scene) -> Iterator[Refused]:
    """401s: keys that are no more, one that never was, and none at all."""
    message = errors.unauthenticated().message
    gone = [
        key for team in scene.cast.teams for key in team.keys if key.revoked_at or _has_expired(scene, key)
    ]
    whose = [(key.id, "not accepted") for key in gone[:5]]
    for key_id, problem in [*whose, ("0WrongKey9", "not accepted"), (None, "missing"), (None, "malformed")]:
        for ident, at in _moments(scene, 2):
            yield Refused(
                id=ident,
                at=at,
                status=401,
                reason="invalid_key",
                message=message,
                detail={"key": problem},
                key_id=key_id,
                client="203.0.113.77" if key_id is None else "10.42.11.4",
            )


def _has_expired(scene: Scene, key: Key) -> bool:
    return key.expires_at is not None and key.expires_at < scene.span.now


def _not_allowed(scene: Scene) -> Iterator[Refused]:
    """403s: a suspended team, a model or an address that a key may not use, a model without a price."""
    told = {
        "team_suspended": "The team '…' is suspended; ask the platform team.",
        "model_not_allowed": f"This key may not use the model '{PRO}'; the platform team sets its allowed models.",
        "address_not_allowed": "This key may not be used from 198.51.100.23; the platform team sets its allowed "
        "addresses.",
        "model_without_price": f"The model '{UNPRICED}' has no price here, so it cannot be held against a quota. An "
        f'admin adds [models."{UNPRICED}"] with its credits to models.toml.',
    }
    plain = Wish(FLASH, "images.generations", 1)
    for team in scene.cast.teams:
        for key in team.keys:
            reason = _why_not(team, key, scene)
            if reason is None:
                continue
            model = {"model_not_allowed": PRO, "model_without_price": UNPRICED}.get(reason)
            for ident, at in _moments(scene, 2):
                yield Refused(
                    id=ident,
                    at=at,
                    status=403,
                    reason=reason,
                    message=told[reason],
                    detail={} if model is None else {"asked": asked(plain)},
                    team=team,
                    key_id=key.id,
                    asked=None if model is None else (plain, model),
                    client="198.51.100.23" if reason == "address_not_allowed" else "10.42.7.19",
                )


def _why_not(team: Team, key: Key, scene: Scene) -> str | None:
    if key.until < scene.span.now:
        return None
    if team.suspended_at is not None:
        return "team_suspended"
    if key.plan.addresses is not None:
        return "address_not_allowed"
    if key.plan.models is not None and PRO not in key.plan.models:
        return "model_not_allowed"
    return "model_without_price" if team.plan.slug == "research" else None


def used_last(calls: Sequence[Call]) -> None:
    """Notes on each key when it was used last."""
    for call in calls:
        call.key.last_used_at = call.placed_at
