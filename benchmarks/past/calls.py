"""The calls: when they come and how each of them ends. What the ledger makes of them is `standing` and `rows`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

from benchmarks.past.cast import Cast, Key, PoolKey, Span, Team, uuid7
from benchmarks.past.plan import Wish
from gateway.catalog import price_book
from gateway.catalog.price_book import Price, PriceBook
from gateway.proxy.generation import Operation, size_class

SPIKE_TEAM, SPIKE_AT, SPIKE = "growth-marketing", 0.8, 4.5
# What Pixapi, or the way to it, says no with: the hold's reason, the send's outcome and status, and how often.
FAILURES = (
    ("prompt_rejected", "rejected", 400, 8),
    ("rejected_by_pixapi", "rejected", 422, 3),
    ("upstream_unreachable", "not_sent", None, 2),
    ("upstream_throttled", "throttled", 429, 2),
    ("never sent", None, None, 1),
)
FAILED, TASK_FAILED, SECOND_SEND = 0.016, 0.012, 0.02
_ULID = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_USUAL = {"veo": (70, 160), "kling": (110, 260), "wan": (60, 150)}  # seconds of a task; pictures are quicker
_COSTS = {  # of models with "from" prices, by how much of the way from the charge to the hold
    "veo": (0.0, 0.0, 0.25, 0.5),
    "kling": (0.0, 0.0, 0.0, 0.4),
    "wan": (0.0, 0.0, 0.5),
}


@dataclass(frozen=True, slots=True)
class Send:
    """One send of a call."""

    key: UUID
    outcome: str
    status: int | None
    milliseconds: int


@dataclass(slots=True, kw_only=True)
class Task:
    """The task a call was accepted as; amounts in micro-credits."""

    id: str
    status: str
    accepted_at: datetime
    seconds: float
    cost: int | None = None
    ended_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Call:
    """A paid call with its hold; amounts in micro-credits."""

    id: UUID
    team: Team
    key: Key
    wish: Wish
    images: int
    seconds: int | None
    price: Price
    placed_at: datetime
    state: str = "held"
    settled: int | None = None
    estimated: bool = False
    flags: list[str] = field(default_factory=list)
    reason: str | None = None
    actor: str | None = None
    unknown_at: datetime | None = None
    ended_at: datetime | None = None
    sends: list[Send] = field(default_factory=list)
    sent_at: datetime | None = None  # when the sends were written down
    task: Task | None = None
    counters: list[int] = field(default_factory=list)

    @property
    def quote(self) -> int:
        return self.price.hold

    @property
    def request_id(self) -> str:
        return f"req_{self.id.hex}"

    @property
    def pool_key(self) -> UUID | None:
        return self.sends[-1].key if self.sends else None

    def settle(self, at: datetime, cost: int, *, estimated: bool, flag: str | None = None) -> None:
        """As `gateway_end` settles a hold: what costs more than was quoted is an overrun."""
        self.state, self.settled, self.estimated, self.ended_at = "settled", cost, estimated, at
        self.flags = [flag] if flag is not None else ["overrun"] if cost > self.quote else []

    def release(self, at: datetime, reason: str) -> None:
        self.state, self.settled, self.estimated, self.ended_at = "released", None, False, at
        self.flags, self.reason = [], reason


@dataclass(frozen=True, slots=True)
class Scene:
    """What calls are drawn from."""

    chance: Random
    span: Span
    cast: Cast
    book: PriceBook


def calls(scene: Scene, a_day: float) -> list[Call]:
    """The calls of the whole time in the order they come, `a_day` of them on average."""
    shares = list(_shares(scene))
    days = (scene.span.now - scene.span.start) / timedelta(days=1)
    whole = a_day * days / (sum(share for _, _, share in shares) or 1.0)
    found = []
    for team, midnight, share in shares:
        wanted = share * whole
        for _ in range(int(wanted) + (scene.chance.random() < wanted % 1)):
            moment = _moment(scene.chance, team, midnight)
            if scene.span.start <= moment < (team.suspended_at or scene.span.now):
                call = draw(scene, team, moment)
                if call is not None and (call.task is not None or (call.ended_at or moment) < scene.span.now):
                    found.append(call)
    return sorted(found, key=lambda call: call.placed_at)


def draw(scene: Scene, team: Team, at: datetime, wish: Wish | None = None) -> Call | None:
    """A call of the team at this moment, to its end; None when none of its keys may make one."""
    keys = [key for key in team.keys if key.since <= at < key.until and key.plan.share]
    if not keys:
        return None
    key = scene.chance.choices(keys, [one.plan.share for one in keys])[0]
    if wish is None:
        allowed = [one for one in team.plan.wishes if key.plan.models is None or one.model in key.plan.models]
        wish = scene.chance.choices(allowed, [one.weight for one in allowed])[0]
    call = placed(scene, team, key, wish, at)
    if Operation(wish.operation).asynchronous:
        _as_task(scene, call)
    else:
        _at_once(scene, call)
    return call


def placed(scene: Scene, team: Team, key: Key, wish: Wish, at: datetime) -> Call:
    """A hold that has just been placed."""
    chance = scene.chance
    images = chance.choice(wish.images)
    seconds = chance.choice(wish.seconds) if wish.seconds else None
    return Call(
        id=uuid7(chance, at),
        team=team,
        key=key,
        wish=wish,
        images=images,
        seconds=seconds,
        price=price(scene.book, wish, images, seconds),
        placed_at=at,
    )


def price(book: PriceBook, wish: Wish, images: int, seconds: int | None) -> Price:
    model = book.model(wish.model)
    if model is None:
        raise SystemExit(f"models.toml has no price for {wish.model}")
    return price_book.quote(
        model,
        operation=wish.operation,
        images=images,
        sizes=[None if wish.size is None else size_class(wish.size)],
        quality=wish.quality,
        seconds=None if seconds is None else Decimal(seconds),
        input_images=1 if wish.operation.endswith("edits") else 0,
    )


def task_id(chance: Random, at: datetime) -> str:
    number = (round(at.timestamp() * 1000) << 80) | chance.getrandbits(80)
    return "task_" + "".join(_ULID[(number >> shift) & 31] for shift in range(125, -5, -5))


def _shares(scene: Scene) -> Iterator[tuple[Team, datetime, float]]:
    """Each team's days, as their first instants in its zone, with their part of all calls."""
    span, chance = scene.span, scene.chance
    for team in scene.cast.teams:
        zone = ZoneInfo(team.plan.zone)
        day, last = span.start.astimezone(zone).date(), span.now.astimezone(zone).date()
        spike = span.at(SPIKE_AT).astimezone(zone).date() if team.plan.slug == SPIKE_TEAM else None
        length = max(1, (last - day).days)
        for number in range(length + 1):
            date = day + timedelta(days=number)
            share = team.plan.share * team.plan.growth ** (number / length) * chance.uniform(0.8, 1.2)
            share *= (team.plan.weekend if date.weekday() >= 5 else 1.0) * (
                0.85 if date.weekday() == 4 else 1.0
            )
            yield (
                team,
                datetime.combine(date, time(), zone),
                max(share, 0.1) * SPIKE if date == spike else share,
            )


def _moment(chance: Random, team: Team, midnight: datetime) -> datetime:
    hour = chance.choices(range(24), team.plan.hours)[0]
    local = midnight.replace(hour=hour) + timedelta(seconds=chance.uniform(0, 3600))
    return local.astimezone(UTC)


def _pool_key(scene: Scene, at: datetime) -> PoolKey:
    open_ones = [key for key in scene.cast.pool if key.drains_at is None or at < key.drains_at]
    return scene.chance.choices(open_ones, [key.plan.weight for key in open_ones])[0]


def _sends(scene: Scene, call: Call, outcome: str, status: int | None, milliseconds: int) -> None:
    """The sends of the call: sometimes one key was asked to slow down and another was tried."""
    last = _pool_key(scene, call.placed_at)
    if scene.chance.random() < SECOND_SEND and (first := _pool_key(scene, call.placed_at)) is not last:
        call.sends.append(Send(first.id, "throttled", 429, scene.chance.randrange(60, 240)))
    call.sends.append(Send(last.id, outcome, status, milliseconds))
    took = sum(send.milliseconds for send in call.sends)
    call.sent_at = call.placed_at + timedelta(milliseconds=took + 4)


def _fails(scene: Scene, call: Call) -> bool:
    """Whether Pixapi, or the way there, refused it; then it has ended so."""
    if scene.chance.random() >= FAILED:
        return False
    reason, outcome, status, _ = scene.chance.choices(FAILURES, [one[-1] for one in FAILURES])[0]
    if outcome is not None:
        _sends(scene, call, outcome, status, scene.chance.randrange(80, 900))
    call.release(call.sent_at or call.placed_at + timedelta(milliseconds=15), reason)
    return True


def _at_once(scene: Scene, call: Call) -> None:
    if _fails(scene, call):
        return
    chance = scene.chance
    took = round(chance.lognormvariate(8.9, 0.35) * (0.8 + 0.2 * call.images))
    _sends(scene, call, "answered", 200, min(took, 110_000))
    answered = call.images - (call.images > 1 and chance.random() < 0.02)
    call.settle(call.sent_at or call.placed_at, call.price.credits // call.images * answered, estimated=True)


def _as_task(scene: Scene, call: Call) -> None:
    if _fails(scene, call):
        return
    chance, span = scene.chance, scene.span
    _sends(scene, call, "answered", 200, chance.randrange(180, 900))
    at = call.sent_at or call.placed_at
    seconds = chance.uniform(*_USUAL.get(call.wish.model, (12, 48)))
    call.task = Task(id=task_id(chance, call.placed_at), status="processing", accepted_at=at, seconds=seconds)
    ended = at + timedelta(seconds=seconds + chance.uniform(0.5, 5))
    fails = chance.random() < TASK_FAILED
    if ended < span.now:
        end_task(chance, call, ended, fails=fails)


def end_task(chance: Random, call: Call, at: datetime, *, fails: bool) -> None:
    """The task ends, and its hold at what it cost."""
    task = call.task
    if task is None:
        return
    task.status, task.ended_at = ("failed" if fails else "completed"), at
    if fails:
        task.cost = 0
        call.release(at, "the task failed")
        return
    charge, hold = call.price.credits, call.price.hold
    part = chance.choice(_COSTS.get(call.wish.model, (0.0,) if hold == charge else (0.0, 0.0, 1 / 3)))
    task.cost = charge + round((hold - charge) * part / 10_000) * 10_000
    call.settle(at, task.cost, estimated=False)
