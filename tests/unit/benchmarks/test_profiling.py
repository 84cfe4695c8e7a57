"""Samples of stacks, summed by room and by package."""

from __future__ import annotations

from collections import Counter

from benchmarks.compare.profiling import packages, rooms, shares
from benchmarks.compare.sampling import place

COUNTS = {
    ("gateway.credits.ledger", "sqlalchemy"): 30,
    ("gateway.credits.batch", "gateway"): 10,
    ("gateway.app", "starlette"): 5,
    ("", "uvloop"): 5,
}


def test_place() -> None:
    assert place(["hiredis", "redis.client", "gateway.cache.wire", "gateway.app"]) == (
        "gateway.cache.wire",
        "hiredis",
    )
    assert place(["gateway.cache.wire"]) == ("gateway.cache.wire", "gateway")
    assert place(["asyncio.events"]) == ("", "asyncio")
    assert place([]) == ("", "?")


def test_rooms() -> None:
    assert rooms(COUNTS, 2) == {"gateway.credits": 40, "gateway.app": 5, "– uvloop": 5}
    assert rooms(COUNTS, 3)["gateway.credits.ledger"] == 30


def test_packages() -> None:
    assert packages(COUNTS) == {"sqlalchemy": 30, "gateway itself": 10, "starlette": 5, "uvloop": 5}


def test_shares() -> None:
    lines = shares("room", Counter({"a": 999, "b": 1}), 2.0).splitlines()
    assert lines[2:] == [
        "| a | 99.9% | 1.998 |",
        "| (less than half a percent each) | 0.1% | 0.002 |",
    ]
