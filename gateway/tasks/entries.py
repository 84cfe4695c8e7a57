"""Fresh readings of tasks, by team and id: in this process's memory, and in Redis for all processes.

A value in Redis carries the task and team it belongs to, and both are checked: a reply for another key is no entry.
Ages do not depend on anybody's clock: an entry knows how old it was and how long it had to live when it was put, and
Redis knows how much of that is left. A reading never replaces a newer one.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from uuid import UUID

import msgspec

from gateway.cache import entry
from gateway.cache.client import CacheClient, Script
from gateway.clock import Clock
from gateway.tasks.reading import Cache, Reading
from gateway.tasks.registry import TaskRecord

log = logging.getLogger("gateway.tasks")

MEMORY_BYTES = 16 * 1024 * 1024  # of running tasks, and as much of ended ones
LARGEST_IN_MEMORY = 256 * 1024
LARGEST_IN_REDIS = 1024 * 1024
OVERHEAD = 500  # bytes of an entry besides its body, about

# A value begins with its rank, fixed in width: ended before running, then by the number of the read.
_PUT = Script("""
local known = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
if known > ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 1
""")
RANK_WIDTH = 20


class _Value(msgspec.Struct, array_like=True):
    team: UUID
    task: str
    status: str
    ended: bool
    stale: bool
    number: int
    direct: bool
    age: int  # milliseconds when it was put
    lives: int  # milliseconds it was put for
    body: bytes


class TaskEntries:
    """`unfinished` and `finished` in seconds: how long an entry serves."""

    def __init__(
        self, cache: CacheClient, clock: Clock, *, unfinished: float = 2.0, finished: float = 3600.0
    ) -> None:
        self._cache = cache
        self._clock = clock
        self.unfinished = unfinished
        self.finished = finished
        self._running = _Shelf()
        self._ended = _Shelf()

    def fresh(self, number: int, status: str, body: bytes, *, ended: bool) -> Reading:
        """What this process has read from Pixapi just now."""
        now = self._clock.monotonic()
        return Reading(
            body=body,
            status=status,
            ended=ended,
            seen_at=now,
            fresh_until=now + (self.finished if ended else self.unfinished),
            number=number,
            direct=True,
        )

    def recorded(
        self, record: TaskRecord, cache: Cache, *, asked: bool = True, read_now: bool = False
    ) -> Reading:
        """What Postgres had when the record was found; it serves until the task may be read again."""
        now = self._clock.monotonic()
        read_at = now if read_now or not asked else now - (record.read_ago or 0)
        return Reading(
            body=record.body,
            status=record.status,
            ended=record.ended,
            seen_at=now - record.seen_ago,
            fresh_until=now + self.finished if record.ended else read_at + self.unfinished,
            number=record.reads,
            cache=cache,
            asked=asked,
        )

    def known(self, team_id: UUID, task_id: str) -> Reading | None:
        """What this process knows of the team's task and may still show, at no cost."""
        found = self._remembered(task_id)
        return None if found is None or found.team_id != team_id else found.shown

    async def find(self, team_id: UUID, task_id: str) -> Reading | None:
        """What any process knows of the team's task and may still show."""
        if (found := self.known(team_id, task_id)) is not None:
            return found
        found_there = await entry.fetch(self._cache, _name(team_id, task_id))
        if found_there is None:
            return None
        shared = self._read(team_id, task_id, *found_there)
        return None if shared is None else self._remember(team_id, task_id, shared)

    def keep(self, team_id: UUID, task_id: str, reading: Reading) -> Reading:
        """Shows this reading from now on, here and (unless it is only this process's trouble) everywhere.

        Answers what is to be shown: something newer may be known already.
        """
        shown = self._remember(team_id, task_id, reading)
        left = reading.fresh_until - self._clock.monotonic()
        if shown is reading and reading.asked and left > 0 and len(reading.body) <= LARGEST_IN_REDIS:
            self._share(team_id, task_id, reading, max(1, round(left * 1000)))
        return reading if shown is reading else _not_waited_for(shown)

    def outdate(self, task_id: str, ended: bool, number: int) -> bool:
        """Another process has made this read: what is remembered of the task is dropped unless it is as new.

        Whether anything newer is there to be found.
        """
        known = self._remembered(task_id)
        if known is not None and known.reading.rank >= (ended, number, True):
            return False
        self._running.drop(task_id)
        self._ended.drop(task_id)
        return True

    def _share(self, team_id: UUID, task_id: str, reading: Reading, lives: int) -> None:
        value = _Value(
            team=team_id,
            task=task_id,
            status=reading.status,
            ended=reading.ended,
            stale=reading.cache == "stale",
            number=reading.number,
            direct=reading.direct,
            age=max(0, round((self._clock.monotonic() - reading.seen_at) * 1000)),
            lives=lives,
            body=reading.body,
        )
        rank = f"{reading.ended:d}{reading.number:0{RANK_WIDTH - 2}d}{reading.direct:d}"
        self._cache.script_soon(_PUT, [_name(team_id, task_id)], [rank, msgspec.msgpack.encode(value), lives])

    def _read(self, team_id: UUID, task_id: str, raw: bytes, left: int) -> Reading | None:
        value = entry.decode(raw[RANK_WIDTH:], _Value)
        if value is None:
            return None
        if (value.team, value.task) != (team_id, task_id):
            log.error("an entry of another task", extra={"task_id": task_id})
            return None
        now = self._clock.monotonic()
        return Reading(
            body=value.body,
            status=value.status,
            ended=value.ended,
            seen_at=now - (value.age + max(0, value.lives - left)) / 1000,
            fresh_until=now + left / 1000,
            number=value.number,
            direct=value.direct,
            cache="stale" if value.stale else "hit",
        )

    def _remembered(self, task_id: str) -> _Kept | None:
        now = self._clock.monotonic()
        return self._ended.find(task_id, now) or self._running.find(task_id, now)

    def _remember(self, team_id: UUID, task_id: str, reading: Reading) -> Reading:
        """What is to be shown: this reading, or a newer one that is known already."""
        known = self._remembered(task_id)
        if known is not None and known.team_id == team_id and reading.rank < known.reading.rank:
            return known.reading
        now = self._clock.monotonic()
        if reading.ended:
            self._running.drop(task_id)
            self._ended.put(team_id, task_id, reading, now)
        else:
            self._running.put(team_id, task_id, reading, now)
        return reading


class _Kept:
    """A reading that is remembered, whose task it is of, and how it is shown to those who did not wait for it."""

    __slots__ = ("_shown", "reading", "team_id")

    def __init__(self, team_id: UUID, reading: Reading) -> None:
        self.team_id = team_id
        self.reading = reading
        self._shown: Reading | None = None

    @property
    def shown(self) -> Reading:
        if self._shown is None:
            self._shown = _not_waited_for(self.reading)
        return self._shown


class _Shelf:
    """Readings by task id, the oldest first; what is too old, or too much, is dropped as others come."""

    def __init__(self) -> None:
        self._readings: dict[str, _Kept] = {}
        self._bytes = 0

    def find(self, task_id: str, now: float) -> _Kept | None:
        found = self._readings.get(task_id)
        return None if found is None or now >= found.reading.fresh_until else found

    def put(self, team_id: UUID, task_id: str, reading: Reading, now: float) -> None:
        self.drop(task_id)
        if len(reading.body) > LARGEST_IN_MEMORY:
            return
        self._readings[task_id] = _Kept(team_id, reading)
        self._bytes += len(reading.body) + OVERHEAD
        while self._readings:
            oldest, first = next(iter(self._readings.items()))
            if self._bytes <= MEMORY_BYTES and now < first.reading.fresh_until:
                break
            self.drop(oldest)

    def drop(self, task_id: str) -> None:
        found = self._readings.pop(task_id, None)
        if found is not None:
            self._bytes -= len(found.reading.body) + OVERHEAD


def _not_waited_for(reading: Reading) -> Reading:
    return replace(reading, cache="stale" if reading.cache == "stale" else "hit")


def _name(team_id: UUID, task_id: str) -> str:
    return f"pxg:task:{team_id.hex}:{task_id}"
