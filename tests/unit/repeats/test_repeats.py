"""Calls an SDK may retry: their answers lie where other processes look before the records say that they arrived."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gateway import errors
from gateway.cache.client import CacheGone
from gateway.cache.wire import Command
from gateway.clock import SystemClock
from gateway.credits.terms import Repeatable
from gateway.repeats import deliveries
from gateway.repeats import repeats as module
from gateway.repeats.answer import Answer, Bytes, failed, whole
from gateway.repeats.files import AnswerFiles
from gateway.repeats.recent import Recent
from gateway.repeats.records import Kept, Record, Records
from gateway.repeats.repeats import Repeats, Rules
from gateway.repeats.shelf import REDIS_BYTES, Shelf
from tests.fakes.cache import GoneCache
from tests.fakes.events import LinkedEvents

RETRIED = Repeatable(idempotency_key=None, fingerprint=b"f", lives=1)
KEYED = Repeatable(idempotency_key="one", fingerprint=b"f", lives=1)
ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


class Book(Records):
    """Records of two processes, in memory: calls whose holds have ended."""

    def __init__(self) -> None:
        self.there: dict[UUID, Record] = {}
        self.notes: list[list[UUID]] = []
        self.is_down = False

    async def by_holds(self, hold_ids: Collection[UUID]) -> dict[UUID, Record]:
        return {hold_id: self.there[hold_id] for hold_id in hold_ids if hold_id in self.there}

    async def keep(self, hold_id: UUID, kept: Kept) -> None:
        self._ask()
        found = self.there[hold_id]
        self.there[hold_id] = dataclasses.replace(
            found, state="ended", status=kept.status, headers=kept.headers, body=kept.body, path=kept.path
        )

    async def delivered(self, hold_ids: Sequence[UUID], lives: float) -> None:
        self._ask()
        self.notes.append(list(hold_ids))
        for hold_id in hold_ids:
            self.there[hold_id] = dataclasses.replace(self.there[hold_id], state="ended")

    def _ask(self) -> None:
        if self.is_down:
            raise errors.dependency_unavailable("down")


class Memory(GoneCache):
    """Redis with SET and GET, that can go."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str | bytes | int, Any] = {}
        self.writes: list[int] = []
        self.is_gone = False

    async def run(self, *command: str | bytes | int) -> Any:
        if self.is_gone:
            raise CacheGone("gone")
        return self.values.get(command[1])

    async def run_all(self, commands: Sequence[Command]) -> None:
        if self.is_gone:
            raise CacheGone("gone")
        self.writes.append(len(commands))
        self.values |= {command[1]: command[2] for command in commands}


class Rig:
    """Two processes that share everything but their memory."""

    def __init__(self, folder: Path) -> None:
        self.book, self.cache = Book(), Memory()
        one = LinkedEvents()
        self.events = [one, LinkedEvents(one.peers)]
        self.here, self.other = (
            Repeats(
                self.book,
                Shelf(self.book, AnswerFiles(folder, 100 * REDIS_BYTES, 60), self.cache),
                events,
                SystemClock(),
                Rules(),
            )
            for events in self.events
        )
        self.freed: list[UUID] = []

    def begun(self, hold_id: UUID, repeatable: Repeatable = RETRIED) -> Recent:
        self.book.there[hold_id] = Record(
            hold_id=hold_id,
            fingerprint=b"f",
            state="running",
            hold="settled",
            model="m",
            task_id=None,
            status=None,
            headers=None,
            body=None,
            path=None,
            ended_ago=1.0,
        )
        return self.here.began(hold_id, repeatable)

    def ended(self, call: Recent, answer: Answer) -> None:
        self.here.ended(call, answer, lambda: self.freed.append(call.hold_id))

    def answered(self, hold_id: UUID, size: int = 10, *, delivered: bool = True) -> Recent:
        call = self.begun(hold_id)
        self.ended(call, Answer(200, body=Bytes(b"x" * size)))
        self.here.written(call, delivered)
        return call

    async def asked_elsewhere(self, hold_id: UUID) -> bytes:
        """What a retry gets that has joined at the other process."""
        async with self.other.answer(self.book.there[hold_id]) as answer:
            assert answer.body is not None, answer
            return await whole(answer.body)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.book.is_down = False
    await rig.here.close()
    await rig.other.close()


async def test_who_waits_at_another_process_hears_when_the_record_says_so(rig: Rig) -> None:
    """Not only by the look that comes once a second."""
    call = rig.begun(ONE)
    waiting = asyncio.create_task(rig.asked_elsewhere(ONE))
    await asyncio.sleep(0.1)
    rig.ended(call, Answer(200, body=Bytes(b"answer")))
    rig.here.written(call, True)
    began = time.monotonic()
    assert await waiting == b"answer"
    assert time.monotonic() - began < 0.5


async def test_answers_that_arrived_together_are_shared_noted_and_told_of_at_once(rig: Rig) -> None:
    for hold_id in (ONE, TWO, THREE):
        rig.answered(hold_id)
    await asyncio.sleep(4 * deliveries.NOTE_SECONDS)
    assert (rig.cache.writes, rig.book.notes) == ([3], [[ONE, TWO, THREE]])
    assert rig.events[0].published == [("call", f"{ONE.hex} {TWO.hex} {THREE.hex}")]
    assert await rig.asked_elsewhere(TWO) == b"x" * 10
    assert rig.freed == []


@pytest.mark.parametrize("delivered", [True, False], ids=["its client stays", "its client leaves"])
async def test_what_a_repeat_here_got_first_is_noted_when_others_find_it(rig: Rig, delivered: bool) -> None:
    call = rig.begun(ONE)
    rig.ended(call, Answer(200, body=Bytes(b"answer")))
    async with rig.here.answer(rig.book.there[ONE]):
        pass
    rig.here.replayed(rig.book.there[ONE], RETRIED)
    await asyncio.sleep(2 * deliveries.NOTE_SECONDS)
    assert (rig.book.notes, rig.book.there[ONE].state) == (
        [],
        "running",
    )  # whoever looks elsewhere goes on waiting
    rig.here.written(call, delivered)
    await asyncio.sleep(4 * deliveries.NOTE_SECONDS)
    assert rig.book.notes == [[ONE]]
    assert await rig.asked_elsewhere(ONE) == b"answer"


async def test_redis_is_given_no_more_at_a_time_than_it_takes_soon(rig: Rig) -> None:
    for hold_id in (ONE, TWO, THREE):
        rig.answered(hold_id, REDIS_BYTES // 2)
    await asyncio.sleep(4 * deliveries.NOTE_SECONDS)
    assert (rig.cache.writes, rig.book.notes) == ([2, 1], [[ONE, TWO, THREE]])


async def test_without_redis_what_arrived_is_kept_with_its_record(rig: Rig) -> None:
    rig.cache.is_gone = True
    for hold_id in (ONE, TWO):
        rig.answered(hold_id)
    await asyncio.sleep(4 * deliveries.NOTE_SECONDS)
    assert rig.book.notes == [[ONE, TWO]]
    assert await rig.asked_elsewhere(TWO) == b"x" * 10


async def test_a_large_answer_goes_from_memory_when_it_is_filed(rig: Rig) -> None:
    rig.answered(ONE, REDIS_BYTES + 1)
    async with asyncio.timeout(3):
        while not rig.freed or not rig.book.notes:
            await asyncio.sleep(0.01)
    assert (rig.freed, rig.cache.writes) == ([ONE], [])
    assert await rig.asked_elsewhere(ONE) == b"x" * (REDIS_BYTES + 1)


async def test_what_arrived_last_is_shared_and_noted_before_the_end(rig: Rig) -> None:
    rig.answered(ONE)
    rig.answered(TWO, REDIS_BYTES + 1)
    await rig.here.close()
    assert sorted(hold_id for note in rig.book.notes for hold_id in note) == [ONE, TWO]
    assert await rig.asked_elsewhere(ONE) == b"x" * 10
    assert sorted(rig.freed) == [ONE, TWO]


async def test_an_end_waits_for_a_database_that_is_gone_only_so_long(rig: Rig) -> None:
    rig.book.is_down = True
    rig.answered(ONE)
    began = time.monotonic()
    await rig.here.close(0.3)
    assert time.monotonic() - began < 1
    assert rig.freed == [ONE]


async def test_the_answer_of_a_client_that_had_left_is_kept_with_its_record(rig: Rig) -> None:
    rig.answered(ONE, delivered=False)
    assert await rig.asked_elsewhere(ONE) == b"x" * 10
    assert (rig.book.notes, rig.cache.writes) == ([], [])
    assert rig.book.there[ONE].body == b"x" * 10


async def test_where_a_client_is_slow_its_answer_is_kept_meanwhile(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.4)
    slow, quick, later = (rig.begun(hold_id) for hold_id in (ONE, TWO, THREE))

    async def until_kept(hold_id: UUID) -> None:
        async with asyncio.timeout(3):
            while rig.book.there[hold_id].headers is None:
                await asyncio.sleep(0.01)

    for call in (slow, quick):
        rig.ended(call, Answer(200, body=Bytes(b"answer")))
    rig.here.written(quick, True)
    await asyncio.sleep(0.3)
    rig.ended(later, Answer(200, body=Bytes(b"answer")))
    await until_kept(ONE)
    assert rig.book.there[THREE].headers is None
    await until_kept(THREE)
    assert rig.book.there[TWO].headers is None
    assert rig.freed == []


async def test_a_call_that_was_not_executed_is_told_of_at_once_and_forgotten(rig: Rig) -> None:
    call = rig.begun(ONE)
    rig.ended(call, failed(errors.internal_error(), executed=False))
    assert rig.events[0].published == [("call", ONE.hex)]
    rig.here.written(call, True)
    await asyncio.sleep(2 * deliveries.NOTE_SECONDS)
    assert (rig.freed, rig.book.notes) == ([ONE], [])


async def test_the_answer_of_a_call_with_a_key_lies_with_its_record_before_its_client_has_it(
    rig: Rig,
) -> None:
    call = rig.begun(ONE, KEYED)
    answer = Answer(200, body=Bytes(b"answer"))
    await rig.here.keep(call, answer)
    assert rig.book.there[ONE].body == b"answer"
    rig.ended(call, answer)
    rig.here.written(call, True)
    assert rig.freed == [ONE]
    await asyncio.sleep(2 * deliveries.NOTE_SECONDS)
    assert rig.book.notes == []


async def test_while_it_is_being_kept_its_body_does_not_go(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STORE_SECONDS", 0.05)
    rig.book.is_down = True
    call = rig.begun(ONE, KEYED)
    answer = Answer(200, body=Bytes(b"answer"))
    await rig.here.keep(call, answer)
    rig.ended(call, answer)
    rig.here.written(call, True)
    await asyncio.sleep(0)
    assert rig.freed == []
    rig.book.is_down = False
    async with asyncio.timeout(3):
        while not rig.freed:
            await asyncio.sleep(0.01)
    assert rig.book.there[ONE].body == b"answer"


async def test_what_arrived_while_it_was_still_being_kept_is_noted_after_that(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.01)
    rig.book.is_down = True
    call = rig.begun(ONE)
    rig.ended(call, Answer(200, body=Bytes(b"answer")))
    async with asyncio.timeout(3):
        while call.keeping is None:
            await asyncio.sleep(0.01)
    rig.here.written(call, True)
    rig.book.is_down = False
    async with asyncio.timeout(3):
        while not rig.book.notes:
            await asyncio.sleep(0.01)
    assert rig.book.notes == [[ONE]]
    assert await rig.asked_elsewhere(ONE) == b"answer"
