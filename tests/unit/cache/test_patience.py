"""Patience: one purse of waiting for a whole request, whatever it starts."""

from __future__ import annotations

import asyncio
from contextvars import Context

import pytest

from gateway.cache.patience import REQUEST_SECONDS, current, patience


def test_outside_of_a_request_there_is_none() -> None:
    assert current() is None


def test_a_block_has_one_and_it_ends_with_the_block() -> None:
    with patience(0.2) as purse:
        assert current() is purse
        purse.spend(0.15)
        assert purse.left == pytest.approx(0.05)
        purse.spend(1)
        assert purse.left == 0
    assert current() is None


def test_the_default_is_the_contract_s() -> None:
    assert (patience().left, REQUEST_SECONDS) == (0.3, 0.3)


def test_it_ends_with_an_error_too() -> None:
    with pytest.raises(ValueError, match="x"), patience(0.1):
        raise ValueError("x")
    assert current() is None


def test_an_inner_one_takes_the_outer_one_s_place() -> None:
    with patience(0.3) as outer, patience(5) as inner:
        assert current() is inner
        inner.spend(1)
    assert outer.left == 0.3


async def test_tasks_of_the_request_share_it_and_others_do_not() -> None:
    async def spend() -> bool:
        purse = current()
        if purse is not None:
            purse.spend(0.1)
        return purse is not None

    with patience(0.3) as purse:
        assert all(await asyncio.gather(spend(), spend()))
        assert await asyncio.create_task(spend(), context=Context()) is False
    assert purse.left == pytest.approx(0.1)
