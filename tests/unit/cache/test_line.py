"""A line: no reply ever slides to another caller, whoever leaves or is too late."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.line import Asked, CacheGone, Line
from gateway.cache.wire import ReplyError
from tests.fakes.cache import FakeAddress, FakeWire


class Rig:
    """An open line, and what it told its owner."""

    def __init__(self) -> None:
        self.address = FakeAddress()
        self.answered: list[Any] = []
        self.lost = 0
        self.line = Line(lambda _, reply: self.answered.append(reply), self._lost)

    def _lost(self, line: Line) -> None:
        self.lost += 1

    async def open(self) -> FakeWire:
        await self.line.open(self.address, 1.0)
        return self.address.wires[0]

    def ask(self, number: int, deadline: float = 10.0) -> Asked:
        asked = Asked(b"%d " % number, asyncio.get_running_loop().create_future(), deadline)
        self.line.send([asked])
        return asked


async def test_replies_go_to_those_who_asked_by_order() -> None:
    rig = Rig()
    wire = await rig.open()
    first, second = rig.ask(1), rig.ask(2)
    wire.heard(b"one")
    wire.heard(b"two")
    assert (await first.reply, await second.reply) == (b"one", b"two")
    assert wire.sent == [b"1 ", b"2 "]


async def test_commands_of_one_batch_go_out_in_one_write() -> None:
    rig = Rig()
    wire = await rig.open()
    loop = asyncio.get_running_loop()
    rig.line.send([Asked(b"%d " % number, loop.create_future(), 9.0) for number in range(3)])
    assert wire.sent == [b"0 1 2 "]


@pytest.mark.parametrize("refused", [None, 0, 1])
async def test_commands_asked_together_have_the_last_one_s_reply_or_the_first_error(
    refused: int | None,
) -> None:
    rig = Rig()
    wire = await rig.open()
    together = Asked(b"0 1 2 ", asyncio.get_running_loop().create_future(), 9.0, replies=3)
    rig.line.send([together])
    alone = rig.ask(3)
    replies: list[Any] = [b"zero", b"one", b"two"]
    if refused is not None:
        replies[refused] = ReplyError("ERR")
    for reply in replies:
        assert not together.reply.done()
        wire.heard(reply)
    wire.heard(b"three")
    wanted = b"two" if refused is None else replies[refused]
    assert (await together.reply, await alone.reply) == (wanted, b"three")
    assert rig.answered == [wanted, b"three"]


async def test_commands_asked_together_that_are_too_late_all_keep_their_places() -> None:
    rig = Rig()
    wire = await rig.open()
    together = Asked(b"0 1 ", asyncio.get_running_loop().create_future(), 9.0, replies=2)
    rig.line.send([together])
    alone = rig.ask(2)
    wire.heard(b"zero")
    together.fail(CacheGone("late"))
    wire.heard(b"one")
    assert not alone.reply.done()
    wire.heard(b"two")
    assert (await alone.reply, rig.answered) == (b"two", [b"two"])


async def test_the_reply_of_a_caller_that_left_is_thrown_away() -> None:
    rig = Rig()
    wire = await rig.open()
    gone, here = rig.ask(1), rig.ask(2)
    gone.reply.cancel()
    wire.heard(b"one")
    assert not here.reply.done()
    wire.heard(b"two")
    assert await here.reply == b"two"


async def test_a_caller_that_left_before_the_write_is_not_sent() -> None:
    rig = Rig()
    wire = await rig.open()
    asked = Asked(b"1 ", asyncio.get_running_loop().create_future(), 9.0)
    asked.reply.cancel()
    rig.line.send([asked])
    assert wire.sent == []


async def test_a_retired_line_serves_those_who_still_wait_and_then_closes() -> None:
    rig = Rig()
    wire = await rig.open()
    slow, waits = rig.ask(1, deadline=1.0), rig.ask(2, deadline=2.0)
    assert rig.line.overdue(0.9) == []
    assert rig.line.overdue(1.0) == [slow]
    slow.fail(CacheGone("late"))
    rig.line.retire()
    assert (wire.closed, rig.line.next_deadline) == (False, 2.0)
    wire.heard(b"one, too late")
    wire.heard(b"two")
    assert await waits.reply == b"two"
    assert (rig.answered, wire.closed) == ([b"two"], True)
    with pytest.raises(CacheGone):
        await slow.reply


async def test_a_retired_line_on_which_nobody_waits_closes_at_once() -> None:
    rig = Rig()
    wire = await rig.open()
    rig.ask(1).fail(CacheGone("late"))
    rig.line.retire()
    assert wire.closed


async def test_a_reply_nobody_asked_for_ends_the_line() -> None:
    rig = Rig()
    wire = await rig.open()
    wire.heard(b"whose?")
    assert rig.lost == 1


async def test_closing_hands_back_whoever_still_waits() -> None:
    rig = Rig()
    wire = await rig.open()
    judged, waits = rig.ask(1), rig.ask(2)
    judged.fail(CacheGone("late"))
    assert rig.line.close() == [waits]
    assert rig.line.close() == []
    assert wire.closed


@given(st.lists(st.sampled_from(["ask", "leave", "reply", "late"]), max_size=80), st.data())
def test_whatever_happens_a_reply_is_its_asker_s(steps: list[str], data: st.DataObject) -> None:
    async def run() -> None:
        rig = Rig()
        wire = await rig.open()
        asked: list[Asked] = []
        replied = 0
        for step in steps:
            waiting = [one for one in asked if not one.reply.done()]
            if step == "ask":
                asked.append(rig.ask(len(asked)))
            elif step == "leave" and waiting:
                data.draw(st.sampled_from(waiting)).reply.cancel()
            elif step == "late" and waiting:
                data.draw(st.sampled_from(waiting)).fail(CacheGone("late"))
            elif step == "reply" and replied < len(asked):
                wire.heard(replied)
                replied += 1
        for number, one in enumerate(asked):
            if one.reply.done() and not one.reply.cancelled() and one.reply.exception() is None:
                assert one.reply.result() == number
            assert one.reply.done() or number >= replied

    asyncio.run(run())
