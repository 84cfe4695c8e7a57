"""The model list: one read for all who wait, fresh for minutes, stale rather than none."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gateway.catalog.model_entries import ModelEntries
from gateway.catalog.model_list import LARGEST_BODY, RETRY_SECONDS, ModelList, read_list
from gateway.errors import GatewayError
from gateway.pool.dispatch import Dispatcher
from gateway.pool.pool import Pool
from gateway.upstream.client import Call, NotSentError
from gateway.upstream.outcomes import Outcome, Verdict
from tests.fakes.cache import GoneCache
from tests.fakes.clock import FakeClock
from tests.fakes.key_table import KeyTable, pool_of
from tests.fakes.upstream import Answer, FakeUpstream, Reaction, is_closed

FRESH, STALE = 300.0, 86_400.0


def listing(*models: str, **more: str) -> Answer:
    entries = [{"id": model, "object": "model", **more} for model in models]
    return Answer(200, msgspec.json.encode({"object": "list", "data": entries}))


class Rig:
    """A model list over the accounts named; what each answers can be changed by the test."""

    def __init__(self, pool: Pool, clock: FakeClock, answers: dict[str, Reaction]) -> None:
        self.pool = pool
        self.clock = clock
        self.answers = answers
        self.upstream = FakeUpstream(self._react)
        self.models = ModelList(
            pool,
            Dispatcher(pool, self.upstream, clock),
            ModelEntries(GoneCache()),
            clock,
            fresh=FRESH,
            stale=STALE,
        )

    @classmethod
    async def of(cls, **answers: Reaction) -> Rig:
        table, clock = KeyTable(), FakeClock()
        for account in answers:
            table.add(account)
        return cls(await pool_of(table, clock), clock, answers)

    def _react(self, call: Call) -> Reaction:
        return self.answers[self.upstream.secrets[-1].removeprefix("sk_")]

    async def union(self) -> tuple[list[str], str]:
        """The ids and where they came from."""
        found = await self.models.union("req_1")
        return list(found.entries), found.cache

    async def failure(self) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.models.union("req_1")
        return caught.value

    async def settled(self) -> None:
        """Waits until nothing is being read any more."""
        before = -1
        while before != len(self.upstream.calls):
            before = len(self.upstream.calls)
            for _ in range(20):
                await asyncio.sleep(0)


async def test_the_list_is_the_union_of_all_accounts() -> None:
    rig = await Rig.of(a=listing("veo", "wan", owner="a"), b=listing("kling", "wan", owner="b"))
    found = await rig.models.union("req_1")
    assert sorted(found.entries) == ["kling", "veo", "wan"]
    assert found.entries["wan"] == {"id": "wan", "object": "model", "owner": "a"}
    assert (found.cache, found.read_at) == ("miss", rig.clock.monotonic())
    assert [call.path for call in rig.upstream.calls] == ["/v1/models"] * 2


async def test_it_is_read_again_in_the_background_when_it_is_not_fresh() -> None:
    rig = await Rig.of(a=listing("veo"))
    await rig.union()
    rig.clock.forward(FRESH - 1)
    assert await rig.union() == (["veo"], "hit")
    rig.answers["a"] = listing("wan")
    rig.clock.forward(1)
    assert await rig.union() == (["veo"], "stale")
    await rig.settled()
    assert await rig.union() == (["wan"], "hit")
    assert len(rig.upstream.calls) == 2


async def test_all_who_wait_share_one_read_that_nobody_s_leaving_breaks() -> None:
    rig = await Rig.of(a=listing("veo"))
    rig.upstream.gate.clear()
    waiting = [asyncio.create_task(rig.union()) for _ in range(10)]
    await rig.settled()
    waiting[0].cancel()
    await rig.settled()
    rig.upstream.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert await asyncio.gather(*waiting[1:]) == [(["veo"], "coalesced")] * 9
    assert len(rig.upstream.calls) == 1


@pytest.mark.parametrize(
    "failure",
    [
        NotSentError("no connection"),
        Answer(500),
        Answer(200, b"<html>"),
        Answer(200, b'{"data":{}}'),
        Answer(200, b" " * (LARGEST_BODY + 1)),
    ],
    ids=["not sent", "500", "html", "no list", "too large"],
)
async def test_the_old_list_serves_for_a_day_while_pixapi_cannot_be_asked(
    failure: Reaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.catalog.model_list.LARGEST_BODY", 1000)
    if isinstance(failure, Answer):
        failure = Answer(failure.status, failure.body[:1001])
    rig = await Rig.of(a=listing("veo"))
    await rig.union()
    rig.answers["a"] = failure
    for seconds in (FRESH, STALE / 2, STALE / 2 - FRESH - 1):
        rig.clock.forward(seconds)
        assert await rig.union() == (["veo"], "stale")
        await rig.settled()
    assert len(rig.upstream.calls) in (4, 5)  # a failed read may be repeated, within a budget
    rig.clock.forward(RETRY_SECONDS)
    assert (await rig.failure()).status in (502, 503)
    assert all(is_closed(body) for body in rig.upstream.bodies)


async def test_after_a_failure_nobody_asks_for_five_seconds() -> None:
    rig = await Rig.of(a=Answer(500))
    first, second = await rig.failure(), await rig.failure()
    assert first is second
    assert len(rig.upstream.calls) == 2  # one was repeated
    rig.clock.forward(RETRY_SECONDS)
    rig.answers["a"] = listing("veo")
    assert await rig.union() == (["veo"], "miss")


async def test_one_account_s_failure_hides_only_its_own_models() -> None:
    rig = await Rig.of(a=Answer(500), b=listing("veo"))
    assert await rig.union() == (["veo"], "miss")


@pytest.mark.parametrize("broken", [Answer(500), NotSentError("no connection")], ids=["500", "not sent"])
async def test_an_account_whose_list_cannot_be_read_degrades_nobody(broken: Reaction) -> None:
    rig = await Rig.of(a=broken, b=listing("veo"))
    await rig.union()
    for _ in range(3):
        rig.clock.forward(RETRY_SECONDS)
        assert await rig.union() == (["veo"], "hit")
        await rig.settled()
    assert len(rig.upstream.calls) == 6  # it is asked all the same, and once more
    rig.clock.forward(FRESH)
    assert await rig.union() == (["veo"], "stale")


async def test_nobody_waits_for_a_slow_account_while_another_s_list_is_known() -> None:
    rig = await Rig.of(a=Answer(500), b=listing("veo"))
    await rig.union()
    rig.clock.forward(RETRY_SECONDS)
    rig.answers["a"] = listing("wan")
    rig.upstream.gate.clear()
    assert await asyncio.wait_for(rig.union(), 1) == (["veo"], "hit")
    rig.upstream.gate.set()
    await rig.settled()
    assert await rig.union() == (["wan", "veo"], "hit")


async def test_without_any_key_there_is_no_list() -> None:
    rig = await Rig.of()
    assert (await rig.failure()).reason == "no_upstream_key"


async def test_a_paid_call_may_use_accounts_that_list_its_model_or_were_never_asked() -> None:
    rig = await Rig.of(a=listing("veo"), b=listing("wan"))
    assert rig.models.lists("a", "anything")
    assert rig.models.anyone_lists("anything")
    await rig.models.warm()
    assert (rig.models.lists("a", "veo"), rig.models.lists("b", "veo")) == (True, False)
    assert rig.models.anyone_lists("wan")
    assert not rig.models.anyone_lists("anything")
    rig.clock.forward(STALE)
    assert rig.models.lists("b", "veo")


async def test_an_account_never_asked_is_no_choice_where_another_lists_the_model() -> None:
    rig = await Rig.of(a=listing("veo"), b=Answer(500))
    await rig.models.warm()
    assert (rig.models.lists("a", "veo"), rig.models.lists("b", "veo")) == (True, False)
    assert (rig.models.lists("a", "wan"), rig.models.lists("b", "wan")) == (False, True)
    assert rig.models.anyone_lists("wan")
    lease = rig.pool.lease_paid(lambda key: key.account == "a")
    rig.pool.report(lease, Outcome(Verdict.KEY_EXHAUSTED))
    assert rig.models.lists("b", "veo")  # as long as that other one cannot serve
    await rig.pool.close()


async def test_warming_reads_only_what_is_due() -> None:
    rig = await Rig.of(a=listing("veo"), b=Answer(500))
    await rig.models.warm()
    await rig.models.warm()
    assert len(rig.upstream.calls) == 3  # one was repeated; from here on the budget of repeats is used up
    rig.clock.forward(RETRY_SECONDS)
    await rig.models.warm()
    assert len(rig.upstream.calls) == 4
    rig.clock.forward(FRESH)
    await rig.models.warm()
    assert len(rig.upstream.calls) == 6


async def test_closing_ends_reads_under_way() -> None:
    rig = await Rig.of(a=listing("veo"))
    rig.upstream.gate.clear()
    warming = asyncio.create_task(rig.models.warm())
    await rig.settled()
    await rig.models.close()
    await asyncio.wait_for(warming, 1)


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"data":[]}', []),
        (b'{"object":"list","data":[{"id":"a"},{"id":"b","x":1}]}', ["a", "b"]),
        (b'{"data":[{"id":"a"},{"id":""},{"id":5},{},"x",null,{"id":"a","x":1}]}', ["a"]),
        (b"", None),
        (b"[]", None),
        (b'{"data":null}', None),
        (b'{"data":[' + b"[" * 100_000, None),
        (b'{"data":[{"id":"\xff"}]}', None),
    ],
    ids=range(8),
)
def test_lists_are_read_leniently(body: bytes, ids: list[str] | None) -> None:
    found = read_list(body)
    assert (None if found is None else list(found)) == ids
