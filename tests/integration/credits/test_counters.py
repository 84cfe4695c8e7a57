"""Quotas that come, change and go while credits are spent: what their counters know of the period."""

from __future__ import annotations

import asyncio

import pytest

from gateway.credits import quotas
from gateway.credits.quotas import Owner
from gateway.credits.terms import Conclusion
from gateway.errors import GatewayError
from tests.integration.credits.conftest import Books


async def test_a_quota_set_in_mid_period_counts_what_the_period_had(books: Books) -> None:
    team = await books.team()
    keys = [await books.key(team) for _ in range(2)]
    await books.settle(await books.place(team, keys[0], 8), 5)
    open_hold = await books.place(team, keys[0], 8)
    unknown = await books.place(team, keys[1], 4)
    await books.end(unknown, Conclusion(state="unknown"))
    month = await books.quota(Owner(team), 20)
    own = await books.quota(Owner(team, keys[0]), 20, "total")
    assert await books.counter(month) == (5, 12), "opened with the quota, not with the next call"
    assert await books.counter(own) == (5, 8)
    with pytest.raises(GatewayError, match="402"):
        await books.place(team, keys[1], 4)
    await books.settle(open_hold, 8)
    await books.end(unknown, Conclusion(state="released"))
    assert await books.counter(month) == (13, 0)
    assert await books.counter(own) == (13, 0)
    assert (await books.proof()).ok


async def test_a_changed_limit_holds_for_the_next_call(books: Books) -> None:
    team = await books.team()
    key = await books.key(team)
    quota = await books.quota(Owner(team), 10)
    held = await books.place(team, key, 8)
    await books.quota(Owner(team), 4)
    with pytest.raises(GatewayError, match="402"):
        await books.place(team, key, 1)
    await books.settle(held, 8)
    [now] = await books.standings(team, key)
    assert (now.limit, now.settled, now.remaining) == (4_000_000, 8_000_000, 0)
    await books.quota(Owner(team), 9)
    await books.place(team, key, 1)
    await books.quota(Owner(team), 4, enforce=False)
    await books.place(team, key, 1)
    await books.quota(Owner(team), 4)
    with pytest.raises(GatewayError, match="402"):
        await books.place(team, key, 1)
    assert await books.counter(quota) == (8, 2)
    assert (await books.proof()).ok


async def test_quotas_come_and_go_while_calls_are_made(books: Books) -> None:
    team = await books.team()
    key = await books.key(team)
    stop = asyncio.Event()

    async def call(number: int) -> int:
        made = 0
        while not stop.is_set():
            made += 1
            hold = await books.place(team, key, 2)
            if number % 2:
                await books.end(hold, Conclusion(state="unknown"))
            await books.settle(hold, 1 + number % 3)
        return made

    callers = [asyncio.create_task(call(number)) for number in range(6)]
    for _ in range(6):
        await books.quota(Owner(team), 1_000_000)
        await books.quota(Owner(team, key), 1_000_000, "day")
        await books.place(team, key, 1)
        assert (await books.proof()).differences == ()
        for owner, period in ((Owner(team), "month"), (Owner(team, key), "day")):
            async with books.database.transaction() as connection:
                await quotas.remove(connection, "test", owner, period)  # type: ignore[arg-type]
    quota = await books.quota(Owner(team), 1_000_000, "total")
    stop.set()
    assert sum(await asyncio.gather(*callers)) > 6
    [used] = await books.execute("SELECT sum(credits) AS credits FROM usage_buckets")
    assert await books.counter(quota) == (float(used.credits) / 1e6, 6)
    assert (await books.proof()).differences == ()


async def test_another_time_zone_counts_its_own_periods(books: Books) -> None:
    team = await books.team()
    key = await books.key(team)
    successor = await books.rotated(key)
    await books.quota(Owner(team), 100)
    await books.quota(Owner(team), 100, "day")
    await books.quota(Owner(team), 100, "total")
    await books.quota(Owner(team, successor), 100, "day")
    await books.place(team, key, 8)
    for zone in ("Asia/Tokyo", "America/New_York", "UTC", "Asia/Tokyo"):
        await books.move(team, zone)
        await books.settle(await books.place(team, successor, 2), 1)
        assert (await books.proof()).differences == (), zone
    found = {(one.scope, one.period): one for one in await books.standings(team, successor)}
    for (_, period), one in found.items():
        since = {"day": "day", "month": "month"}.get(period)
        query = f"placed_at >= date_trunc('{since}', now(), 'Asia/Tokyo')" if since else "true"
        [real] = await books.execute(
            "SELECT coalesce(sum(settled), 0)::bigint AS settled,"
            f" coalesce(sum(quote) FILTER (WHERE state = 'held'), 0)::bigint AS held FROM holds WHERE {query}"
        )
        assert (one.settled, one.held) == (real.settled, real.held), (one, real)
    [running] = await books.execute("SELECT count(*) AS n FROM quota_periods")
    assert running.n == 4, "one a quota, however often the zone changed"


async def test_a_counter_nobody_opened_is_shown_as_it_would_start(books: Books) -> None:
    team = await books.team()
    key = await books.key(team)
    await books.quota(Owner(team), 10)
    await books.settle(await books.place(team, key, 3), 2)
    await books.place(team, key, 3)
    opened = await books.standings(team, key)
    await books.execute("DELETE FROM quota_periods")
    assert await books.standings(team, key) == opened
    assert (opened[0].settled, opened[0].held, opened[0].remaining) == (2_000_000, 3_000_000, 5_000_000)


async def test_a_key_sees_its_own_and_its_team_s_quotas(books: Books) -> None:
    team, other = await books.team("One"), await books.team("Other")
    key, sibling = await books.key(team), await books.key(team)
    for owner, period in (
        (Owner(team), "total"), (Owner(team), "day"), (Owner(team, key), "week"), (Owner(team, sibling), "day"),
        (Owner(other), "day"),
    ):  # fmt: skip
        await books.quota(owner, 10, period, enforce=period != "week")  # type: ignore[arg-type]
    found = await books.standings(team, key)
    assert [(one.scope, one.period, one.enforce) for one in found] == [
        ("team", "day", True),
        ("team", "total", True),
        ("key", "week", False),
    ]
    assert [one.resets_at is None for one in found] == [False, True, False]
