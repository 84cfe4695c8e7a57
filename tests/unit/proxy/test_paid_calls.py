"""Paid calls: seats are counted exactly, and a call ends only by itself or with its process."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.proxy.paid_calls import PaidCalls, Seat


async def until(event: asyncio.Event) -> str:
    await event.wait()
    return "done"


def refused(calls: PaidCalls) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        calls.take_seat()
    return caught.value


def test_seats_are_as_many_as_the_limit() -> None:
    calls = PaidCalls(2)
    first, _second = calls.take_seat(), calls.take_seat()
    error = refused(calls)
    assert (error.status, error.reason, error.retry) == (503, "overloaded", True)
    assert "2 paid calls" in error.message
    with pytest.raises(GatewayError):
        calls.check_room()
    first.close()
    first.close()
    assert calls.under_way == 1
    calls.check_room()


async def test_a_call_outlives_the_request_that_waits_for_it() -> None:
    calls, event = PaidCalls(1), asyncio.Event()
    seat = calls.take_seat()
    task = seat.start(until(event))

    async def request() -> str:
        try:
            return await asyncio.shield(task)
        finally:
            seat.close()

    waiting = asyncio.create_task(request())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert calls.under_way == 1
    assert not task.done()
    event.set()
    assert await task == "done"
    await asyncio.sleep(0)
    assert calls.under_way == 0


async def test_a_process_that_ends_takes_no_more_and_waits_for_those_under_way() -> None:
    calls, event = PaidCalls(5), asyncio.Event()
    seat, about_to_start = calls.take_seat(), calls.take_seat()
    seat.start(until(event))
    calls.shut()
    assert "ending" in refused(calls).message
    ended = asyncio.create_task(calls.ended())
    event.set()
    await asyncio.sleep(0.01)
    assert not ended.done()  # the second seat's hold is placed, its call not yet started
    about_to_start.start(until(event))
    await asyncio.wait_for(ended, 2)
    assert calls.under_way == 0


async def test_giving_up_cancels_and_waits_for_what_the_calls_do_about_it() -> None:
    calls, deferred = PaidCalls(5), []

    async def call(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            deferred.append(number)

    for number in range(3):
        calls.take_seat().start(call(number))
    await asyncio.sleep(0)
    assert await calls.give_up() == 3
    assert (sorted(deferred), calls.under_way) == ([0, 1, 2], 0)
    assert await calls.give_up() == 0


async def test_a_call_that_fails_is_logged_and_gives_its_seat_back(caplog: pytest.LogCaptureFixture) -> None:
    calls = PaidCalls(1)

    async def call() -> None:
        raise RuntimeError("a defect")

    task = calls.take_seat().start(call())
    await asyncio.wait({task})
    await asyncio.sleep(0)
    assert calls.under_way == 0
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.message == "a paid call failed"


@pytest.mark.parametrize("fails", [False, True])
async def test_what_a_call_has_taken_is_given_back_when_it_ends(fails: bool) -> None:
    calls, event, told = PaidCalls(1), asyncio.Event(), []

    async def call() -> None:
        await event.wait()
        if fails:
            raise RuntimeError("a defect")

    seat = calls.take_seat()
    seat.free = lambda: told.append(calls.under_way)
    assert not seat.started
    task = seat.start(call())
    seat.close()  # the request has ended, the call has not
    await asyncio.sleep(0)
    assert (seat.started, told) == (True, [])
    event.set()
    await asyncio.wait({task})
    await asyncio.sleep(0)
    assert told == [0]


async def test_a_call_is_over_when_what_it_has_taken_is_free() -> None:
    calls = PaidCalls(1)
    freeing: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    seat = calls.take_seat()
    seat.free = lambda: freeing
    task = seat.start(asyncio.sleep(0, "done"))
    over = asyncio.create_task(seat.over())
    await asyncio.wait({task})
    await asyncio.sleep(0.01)
    assert (calls.under_way, over.done()) == (0, False)
    freeing.set_exception(OSError("not in time"))
    await asyncio.wait_for(over, 1)
    assert task.result() == "done"


async def test_who_waits_for_a_call_s_end_may_be_cancelled() -> None:
    calls, event = PaidCalls(1), asyncio.Event()
    seat = calls.take_seat()
    task = seat.start(until(event))
    over = asyncio.create_task(seat.over())
    await asyncio.sleep(0)
    over.cancel()
    await asyncio.wait({over})
    assert over.cancelled()
    event.set()
    assert await task == "done"
    await asyncio.sleep(0)
    assert calls.under_way == 0


async def test_a_call_that_is_given_up_gives_everything_back() -> None:
    calls, told = PaidCalls(1), []
    seat = calls.take_seat()
    seat.free = lambda: told.append(True)
    seat.start(until(asyncio.Event()))
    await calls.give_up()  # before it has done anything
    await asyncio.wait_for(seat.over(), 1)
    assert (told, calls.under_way) == ([True], 0)


def test_a_seat_without_a_call_is_given_back_by_its_request() -> None:
    calls, told = PaidCalls(1), []
    seat = calls.take_seat()
    seat.free = lambda: told.append(True)
    seat.close()
    seat.close()
    assert (told, calls.under_way) == ([], 0)  # what else the request has taken is its own to give back


@given(st.lists(st.sampled_from(["take", "close", "start", "finish"]), max_size=60), st.integers(1, 5))
def test_no_sequence_loses_or_makes_a_seat(steps: list[str], limit: int) -> None:
    async def run() -> None:
        calls = PaidCalls(limit)
        open_seats: list[Seat] = []
        used: list[Seat] = []
        running: list[asyncio.Event] = []
        for step in steps:
            if step == "take" and len(open_seats) + len(running) < limit:
                open_seats.append(calls.take_seat())
            elif step == "take":
                refused(calls)
            elif step == "close" and open_seats + used:
                seat = (open_seats or used).pop()
                seat.close()
            elif step == "start" and open_seats:
                running.append(asyncio.Event())
                used.append(open_seats.pop())
                used[-1].start(until(running[-1]))
            elif step == "finish" and running:
                running.pop().set()
                for _ in range(4):
                    await asyncio.sleep(0)
            assert calls.under_way == len(open_seats) + len(running)
        for event in running:
            event.set()
        for seat in open_seats:
            seat.close()
        await calls.ended()

    asyncio.run(run())
