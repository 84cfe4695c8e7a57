"""What is out of the ordinary: unknown holds, what time or an admin made of them, odd costs, and what runs now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random

from benchmarks.past.calls import Call, Scene, Send, Task, placed, task_id
from benchmarks.past.cast import Team
from benchmarks.past.plan import VIDEO, Wish
from gateway.proxy.generation import Operation

UNKNOWN = "upstream_outcome_unknown"
A_DAY, SYNC_TIMEOUT = timedelta(days=1), timedelta(minutes=5)
RUNNING_SECONDS = (3, 9, 17, 31, 52, 80, 125, 190, 260)
VERDICTS = (  # an admin's, of unknown holds: what to charge (None: the quote), and why
    (None, "Pixapi's usage page lists the call at full price"),
    (0.5, "Pixapi support: half of the images were made"),
    ("release", "not on Pixapi's usage page, support confirmed that nothing ran"),
    ("release", "duplicate of the call before, never reached Pixapi"),
    (None, "found in the Pixapi log at 200, the answer was lost on the way"),
)


def turn(scene: Scene, found: list[Call], resolver: str) -> None:
    """Changes some of these calls, which are in order, and adds those that run now; `resolver` is an actor."""
    chance, now = scene.chance, scene.span.now
    plain = [call for call in found if call.state == "settled"]
    sync = [call for call in plain if call.task is None]
    old = [call for call in sync if now - call.placed_at > timedelta(days=2)]
    fresh = [call for call in sync if timedelta(minutes=9) < now - call.placed_at < timedelta(hours=20)]
    lost = _some(chance, old, 14)
    for call in lost[::2]:
        _unknown(call)
        call.settle(
            (call.unknown_at or now) + A_DAY + timedelta(seconds=20), call.quote, estimated=True, flag="aged"
        )
        call.reason = f"unknown_too_long: {UNKNOWN}"
    for number, call in enumerate(lost[1::2]):
        _resolve(chance, call, resolver, number)
    for number, call in enumerate(fresh[-5:]):
        _unknown(call)
        if number == 2:
            call.reason, call.sends, call.sent_at = "process_ended", [], None
    _odd_costs(chance, [call for call in plain if call.task is not None])
    quiet = [call for call in old if call.unknown_at is None]
    for call in _some(chance, quiet, 3):
        call.settle(call.ended_at or now, call.quote, estimated=True, flag="odd_answer")
    found += _running(scene)
    found.sort(key=lambda call: call.placed_at)


def _some(chance: Random, found: Sequence[Call], most: int) -> list[Call]:
    return sorted(chance.sample(found, min(most, len(found) // 8)), key=lambda call: call.placed_at)


def _unknown(call: Call) -> None:
    """Sent, and no answer came."""
    last = call.sends[-1]
    call.sends = [*call.sends[:-1], Send(last.key, "unknown", 504, 300_000)]
    call.sent_at = call.unknown_at = call.placed_at + SYNC_TIMEOUT + timedelta(milliseconds=6)
    call.state, call.settled, call.estimated, call.ended_at = "unknown", None, False, None
    call.reason, call.flags = UNKNOWN, []


def _resolve(chance: Random, call: Call, resolver: str, number: int) -> None:
    _unknown(call)
    verdict, reason = VERDICTS[number % len(VERDICTS)]
    at = (call.unknown_at or call.placed_at) + timedelta(minutes=chance.randrange(20, 1200))
    if verdict == "release":
        call.release(at, reason)
    elif verdict is None:
        call.settle(at, call.quote, estimated=True)
    else:
        call.settle(at, call.price.credits // 2, estimated=False)
    call.reason, call.actor = reason, resolver


def _odd_costs(chance: Random, found: list[Call]) -> None:
    """Tasks that cost more than was held, and some whose cost Pixapi did not say; the latest of each is new."""

    def overrun(call: Call, task: Task) -> None:
        task.cost = call.quote + call.price.credits // 4
        call.settle(call.ended_at or task.accepted_at, task.cost, estimated=False)

    def odd(call: Call, task: Task) -> None:
        task.cost = None
        call.settle(call.ended_at or task.accepted_at, call.quote, estimated=True, flag="odd_cost")

    turns: tuple[tuple[Callable[[Call, Task], None], bool], ...] = ((overrun, True), (odd, False))
    for change, videos in turns:
        fitting = [call for call in found if (call.wish.operation == VIDEO) == videos and call.flags == []]
        for call in {call.id: call for call in [*_some(chance, fitting, 6), *fitting[-2:]]}.values():
            if call.task is not None:
                change(call, call.task)


def _running(scene: Scene) -> list[Call]:
    """Tasks that run at this moment, of several teams; and one that somebody has cancelled at Pixapi, which for the
    gateway is a word like any other: it may still run."""
    wishes = [
        (team, wish)
        for team in scene.cast.teams
        if team.suspended_at is None
        for wish in team.plan.wishes
        if Operation(wish.operation).asynchronous
    ]
    found = []
    for number, seconds in enumerate((*RUNNING_SECONDS, 3 * 3600 + 700)):
        fitting = [one for one in wishes if (one[1].operation == VIDEO) == (seconds > 45)]
        team, wish = fitting[number % len(fitting)]
        found.append(_started(scene, team, wish, seconds))
    for call, status in ((found[0], "submitted"), (found[-1], "cancelled")):
        if call.task is not None:
            call.task.status = status
    return found


def _started(scene: Scene, team: Team, wish: Wish, seconds: int) -> Call:
    chance, at = scene.chance, scene.span.now - timedelta(seconds=seconds)
    keys = [
        key
        for key in team.keys
        if key.since <= at < key.until
        and key.plan.share
        and (not key.plan.models or wish.model in key.plan.models)
    ]
    call = placed(scene, team, chance.choice(keys), wish, at)
    send = Send(scene.cast.pool[0].id, "answered", 200, chance.randrange(180, 900))
    call.sends, call.sent_at = [send], at + timedelta(milliseconds=send.milliseconds)
    call.task = Task(
        id=task_id(chance, at),
        status="processing",
        accepted_at=call.sent_at,
        seconds=max(seconds * chance.uniform(1.15, 2.5), 20),
    )
    return call
