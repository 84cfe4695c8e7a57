"""Whatever Redis replies, an entry is one or it is none: never an error, never another's."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from gateway.cache import entry
from gateway.catalog.model_entries import ModelEntries
from gateway.limits.limits import Bound, Bounds, Lane, Limits
from gateway.tasks.entries import TaskEntries
from gateway.telemetry import Metrics
from tests.fakes.cache import GoneCache
from tests.fakes.clock import FakeClock

DEEP = b"\x91" * 100_000
ODD: list[Any] = [
    None,
    0,
    b"",
    [],
    [0],
    [None, -2],
    [b"x"],
    [2, 100, 200],
    [b"x", None],
    [b"x", -1],
    [b"", 100],
    [b"\xc1", 100],
    [DEEP, 100],
    [b"0" * 20 + DEEP, 100],
    [b"0" * 20 + msgspec.msgpack.encode(["\u00e9"]).replace(b"\xc3", b"\xff"), 100],
    [b"0" * 20 + b"\x9a\xa1\xff", 100],
]


class Replying(GoneCache):
    """Says to every script what the test says."""

    def __init__(self, reply: Any) -> None:
        super().__init__()
        self.reply = reply

    async def script(self, *_: Any) -> Any:
        return self.reply


@pytest.mark.parametrize("reply", ODD, ids=range(len(ODD)))
async def test_an_odd_reply_is_no_entry(reply: Any) -> None:
    cache, clock = Replying(reply), FakeClock()
    assert await TaskEntries(cache, clock).find(UUID(int=1), "t") is None
    assert await ModelEntries(cache).find("account", "ident") is None


@pytest.mark.parametrize(
    "reply", [None, b"x", [], [5], [1], [-1, 0, 0], [b"v", 1500], [1, 2], "OK", [1, b"2", 3]]
)
async def test_an_odd_reply_of_the_limits_is_redis_gone(reply: Any) -> None:
    metrics = Metrics()
    limits = Limits(Replying(reply), FakeClock(), metrics)
    bounds = Bounds("team", "key", Bound(None, 1), Bound(60, None))
    taken = await limits.take(bounds, Lane.PAID)
    assert taken is not None
    counted = metrics.registry.get_sample_value("gateway_limits_local_total", {"lane": "paid"})
    assert counted == 1


def test_what_decodes_is_the_value() -> None:
    assert entry.decode(msgspec.msgpack.encode([1]), list[int]) == [1]
    assert entry.decode(msgspec.msgpack.encode(["one"]), list[int]) is None
