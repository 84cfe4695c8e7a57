"""Answers of this process: there for whoever repeats a call, never freed while somebody reads one."""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path
from uuid import UUID

import pytest

from gateway.errors import GatewayError
from gateway.repeats import recent
from gateway.repeats.answer import Answer, Bytes
from gateway.repeats.recent import Recent, RecentCalls
from gateway.spool import SpoolBudget

ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


class Freed(list[UUID]):
    """Whose answers were freed."""

    def ending(self, calls: RecentCalls, call: Recent, size: int = 10) -> None:
        calls.end(call, Answer(200, body=Bytes(b"x" * size)), lambda: self.append(call.hold_id))


@pytest.fixture
def calls() -> RecentCalls:
    return RecentCalls()


@pytest.fixture
def freed() -> Freed:
    return Freed()


async def read(calls: RecentCalls, hold: UUID) -> Answer | None:
    async with calls.answer(hold) as answer:
        return answer


async def test_who_asks_while_it_runs_waits(calls: RecentCalls, freed: Freed) -> None:
    one = calls.begin(ONE, by_key=False)
    waiting = [asyncio.create_task(read(calls, ONE)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    freed.ending(calls, one)
    found = await asyncio.gather(*waiting[1:])
    assert all(answer is not None and answer.status == 200 for answer in found)
    assert await read(calls, TWO) is None


async def test_an_answer_that_is_read_is_freed_after_it(calls: RecentCalls, freed: Freed) -> None:
    one = calls.begin(ONE, by_key=False)
    freed.ending(calls, one)
    async with calls.answer(ONE):
        calls.drop(one)
        assert freed == []
        assert await read(calls, ONE) is None
    assert freed == [ONE]
    calls.drop(one)
    assert freed == [ONE]


async def test_a_call_that_never_answers_tells_those_who_wait(calls: RecentCalls) -> None:
    one = calls.begin(ONE, by_key=False)
    waiting = asyncio.create_task(read(calls, ONE))
    await asyncio.sleep(0)
    calls.drop(one)
    with pytest.raises(GatewayError) as caught:
        await waiting
    assert (caught.value.reason, caught.value.retry) == ("upstream_outcome_unknown", False)


async def test_only_what_was_written_out_goes_for_want_of_room(
    calls: RecentCalls, freed: Freed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "MOST_BYTES", 100)
    one, two, three = (calls.begin(hold, by_key=False) for hold in (ONE, TWO, THREE))
    freed.ending(calls, one, 60)
    freed.ending(calls, two, 60)
    assert freed == []
    two.written = True
    freed.ending(calls, three, 30)
    assert freed == [TWO]
    assert calls.bytes == 90


async def test_the_answer_of_a_call_that_was_forgotten_is_freed_at_once(
    calls: RecentCalls, freed: Freed
) -> None:
    one = calls.begin(ONE, by_key=False)
    calls.drop(one)
    freed.ending(calls, one)
    assert (freed, calls.bytes) == ([ONE], 0)


@pytest.mark.parametrize(("size", "kept"), [(10, False), (11, True)])
async def test_of_a_call_whose_answer_is_in_memory_nothing_else_is_kept(
    calls: RecentCalls, tmp_path: Path, size: int, kept: bool
) -> None:
    body = SpoolBudget(1000, tmp_path, memory_limit=10).body()
    await body.write(b"x" * size)

    class Finished:
        def discard(self) -> None:
            body.close()

    finished = Finished()
    left, one = weakref.ref(finished), calls.begin(ONE, by_key=False)
    calls.end(one, Answer(200, body=body), finished.discard)
    del finished
    assert (left() is not None) == kept
    found = await read(calls, ONE)
    assert found is not None
    assert found.body is body
    calls.drop(one)
    assert left() is None
    body.close()
