"""Patience: one purse of waiting for a whole request, whatever it starts."""

from __future__ import annotations

import asyncio
from contextvars import Context

import pytest

from gateway.patience import POSTGRES, REDIS


def test_outside_of_a_request_there_is_none() -> None:
    assert REDIS.current() is None


def test_a_block_has_one_and_it_ends_with_the_block() -> None:
    with REDIS.patience(0.2) as purse:
        assert REDIS.current() is purse
        purse.spend(0.15)
        assert purse.left == pytest.approx(0.05)
        purse.spend(1)
        assert purse.left == 0
    assert REDIS.current() is None


def test_the_default_is_the_contract_s() -> None:
    assert REDIS.patience().left == 0.3
    assert POSTGRES.patience().left < 5


def test_what_is_waited_for_redis_is_not_waited_for_postgres() -> None:
    with REDIS.patience() as one, POSTGRES.patience() as other:
        one.spend(0.2)
        assert (REDIS.current(), POSTGRES.current()) == (one, other)
        assert other.left == POSTGRES.seconds


def test_it_ends_with_an_error_too() -> None:
    with pytest.raises(ValueError, match="x"), REDIS.patience(0.1):
        raise ValueError("x")
    assert REDIS.current() is None


def test_an_inner_one_takes_the_outer_one_s_place() -> None:
    with REDIS.patience(0.3) as outer, REDIS.patience(5) as inner:
        assert REDIS.current() is inner
        inner.spend(1)
    assert outer.left == 0.3


async def test_tasks_of_the_request_share_it_and_others_do_not() -> None:
    async def spend() -> bool:
        purse = REDIS.current()
        if purse is not None:
            purse.spend(0.1)
        return purse is not None

    with REDIS.patience(0.3) as purse:
        assert all(await asyncio.gather(spend(), spend()))
        assert await asyncio.create_task(spend(), context=Context()) is False
    assert purse.left == pytest.approx(0.1)
