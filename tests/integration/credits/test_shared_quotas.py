"""A rotated key and those that follow it are one line: they count on the same quotas, whichever of them is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from gateway.credits import quotas
from gateway.credits.amount import MICRO
from gateway.credits.quotas import Owner
from gateway.credits.terms import Conclusion
from gateway.db import migrate
from gateway.errors import GatewayError
from gateway.ids import uuid7
from tests.integration.credits.conftest import Books
from tests.integration.ledger.book import address


async def test_both_keys_spend_the_same_credits_during_the_overlap(books: Books) -> None:
    team = await books.team()
    first = await books.key(team)
    quota = await books.quota(Owner(team, first), 10)
    await books.settle(await books.place(team, first, 4), 3)
    second = await books.rotated(first)
    third = await books.rotated(second)
    held = [await books.place(team, key, 2) for key in (first, second, third)]
    for key in (first, second, third):
        [now] = await books.standings(team, key)
        assert (now.scope, now.settled, now.held, now.remaining) == ("key", 3 * MICRO, 6 * MICRO, MICRO)
        with pytest.raises(GatewayError, match="402"):
            await books.place(team, key, 2)
    await books.settle(held[0], 2)
    await books.settle(held[2], 3)
    await books.end(held[1], Conclusion(state="released"))
    assert await books.counter(quota) == (8, 0)
    assert (await books.proof()).differences == ()


async def test_a_rotated_key_goes_on_where_the_old_one_was(books: Books) -> None:
    team = await books.team()
    key = await books.key(team)
    await books.quota(Owner(team, key), 10)
    await books.settle(await books.place(team, key, 4), 3)
    open_hold = await books.place(team, key, 4)
    for _ in range(2):  # the successor's successor counts both before it
        old, key = key, await books.rotated(key)
        [now] = await books.standings(team, key)
        assert (now.settled, now.held, now.remaining) == (3_000_000, 4_000_000, 3_000_000), old
    with pytest.raises(GatewayError, match="402"):
        await books.place(team, key, 4)
    await books.settle(open_hold, 1)
    await books.settle(await books.place(team, key, 6), 6)
    [now] = await books.standings(team, key)
    assert (now.settled, now.held, now.remaining) == (10_000_000, 0, 0)
    assert (await books.proof()).differences == ()
    await books.quota(Owner(team, key), 3, "total")
    [_, total] = await books.standings(team, key)
    assert (total.settled, total.remaining) == (10_000_000, 0), "a quota made later knows the line as well"
    assert (await books.proof()).differences == ()


async def test_a_quota_is_read_set_and_removed_through_any_key_of_the_line(books: Books) -> None:
    team = await books.team()
    old = await books.key(team)
    other = await books.key(team)
    month = await books.quota(Owner(team, old), 10)
    new = await books.rotated(old)
    await books.place(team, old, 2)
    assert await books.quota(Owner(team, new), 8) == month, "the same quota, changed"
    total = await books.quota(Owner(team, old), 5, "total")
    await books.place(team, new, 1)
    assert await books.counter(month) == await books.counter(total) == (0, 3)
    async with books.database.transaction() as connection:
        for key in (old, new):
            found = await quotas.of(connection, Owner(team, key))
            assert [(one.id, one.limit_micro) for one in found] == [(month, 8 * MICRO), (total, 5 * MICRO)]
            assert (await quotas.find(connection, Owner(team, key), "total")).id == total
        assert await quotas.of(connection, Owner(team, other)) == []
        await quotas.remove(connection, "test", Owner(team, old), "month")
        assert [one.id for one in await quotas.of(connection, Owner(team, new))] == [total]
        with pytest.raises(GatewayError, match="404"):
            await quotas.find(connection, Owner(team, new), "month")
    with pytest.raises(GatewayError, match="402"):
        await books.place(team, old, 3)
    assert (await books.proof()).differences == ()
    said = await books.execute("SELECT subject_id FROM audit_entries WHERE action LIKE 'quota%' ORDER BY id")
    assert [row.subject_id for row in said] == [old, new, old, old], "as it was asked for"


async def test_a_quota_made_after_the_rotation_counts_what_every_key_had(books: Books) -> None:
    team = await books.team()
    old, other = await books.key(team), await books.key(team)
    await books.settle(await books.place(team, old, 4), 3)
    new = await books.rotated(old)
    for key, credits_ in ((old, 1), (new, 2), (other, 4)):
        await books.place(team, key, credits_)
    assert await books.counter(await books.quota(Owner(team, new), 10)) == (3, 3)
    await books.execute("DELETE FROM quota_periods")
    [unopened] = await books.standings(team, old)
    assert (unopened.settled, unopened.held) == (3 * MICRO, 3 * MICRO)
    await books.place(team, old, 4)
    [opened] = await books.standings(team, new)
    assert (opened.settled, opened.held, opened.remaining) == (3 * MICRO, 7 * MICRO, 0)


async def test_a_line_keeps_its_quotas_when_its_zone_changes(books: Books) -> None:
    team = await books.team()
    old = await books.key(team)
    await books.quota(Owner(team, old), 50, "day")
    new = await books.rotated(old)
    for zone in ("Asia/Tokyo", "America/New_York", "UTC"):
        await books.move(team, zone)
        for key in (old, new):
            await books.settle(await books.place(team, key, 2), 1)
        assert (await books.proof()).differences == (), zone
        real = await books.execute(
            f"SELECT sum(settled)::bigint AS settled FROM holds"
            f" WHERE placed_at >= date_trunc('day', now(), '{zone}')"
        )
        assert [one.settled for one in await books.standings(team, old)] == [real[0].settled]


@pytest.mark.parametrize("overlap", [0, 3600])
async def test_a_rotation_among_calls_never_lets_more_through(books: Books, overlap: int) -> None:
    team = await books.team()
    keys = [await books.key(team)]
    quota = await books.quota(Owner(team, keys[0]), 40)

    async def call() -> int:
        admitted = 0
        while True:
            try:
                hold = await books.place(team, keys[admitted % len(keys)], 1)
            except GatewayError as error:
                if error.status != 402:
                    raise
                return admitted
            admitted += 1
            if admitted % 3:
                await books.settle(hold, 1)

    callers = [asyncio.create_task(call()) for _ in range(8)]
    for _ in range(4):
        keys.append(await books.rotated(keys[-1], overlap))
    assert sum(await asyncio.gather(*callers)) == 40
    assert sum(await books.counter(quota)) == 40
    assert len(await books.execute("SELECT FROM quotas")) == 1
    assert (await books.proof()).differences == ()


# Data from before the line had quotas in common ---------------------------------------------------------------


class Before:
    """A database at the revision before, written to as that release did."""

    def __init__(self, url: str) -> None:
        self.url = url
        migrate.upgrade(url, "0003")
        self.sql: psycopg.Connection[dict[str, Any]] = psycopg.connect(
            address(url), autocommit=True, row_factory=dict_row
        )
        self.team = uuid7()
        self.sql.execute(
            "INSERT INTO teams (id, slug, name, unlimited) VALUES (%s, 'before', 'Before', true)",
            (self.team,),
        )

    def key(self, ident: str, replaces: str | None = None) -> str:
        self.sql.execute(
            "INSERT INTO team_keys (id, team_id, name, digest, last4) VALUES (%s, %s, 'k', %s, 'last')",
            (ident, self.team, ident.encode()),
        )
        self.sql.execute("UPDATE team_keys SET replaced_by = %s WHERE id = %s", (ident, replaces))
        return ident

    def quota(self, key: str, period: str, limit: int) -> UUID:
        quota = uuid7()
        self.sql.execute(
            "INSERT INTO quotas (id, team_id, key_id, period, limit_micro) VALUES (%s, %s, %s, %s, %s)",
            (quota, self.team, key, period, limit),
        )
        self.sql.execute("SELECT gateway_open_counters(%s)", (self.team,))
        return quota

    def place(self, key: str, quote: int, settled: int | None = None) -> UUID:
        hold = uuid7()
        item = {
            "id": str(hold),
            "team": str(self.team),
            "key": key,
            "request": "r",
            "operation": "o",
            "model": "m",
        }
        placed = self.sql.execute("SELECT * FROM gateway_place(%s)", (json.dumps([item | {"quote": quote}]),))
        assert [row["outcome"] for row in placed] == ["placed"]
        if settled is not None:
            end = {"id": str(hold), "state": "settled", "settled": settled}
            self.sql.execute("SELECT * FROM gateway_end(%s)", (json.dumps([end]),))
        return hold

    def counters(self, key: str) -> list[tuple[Any, ...]]:
        found = self.sql.execute(
            "SELECT q.id, q.period, c.settled, c.held FROM quotas q LEFT JOIN quota_periods c ON c.quota_id = q.id"
            " WHERE q.key_id = %s ORDER BY q.period",
            (key,),
        )
        return [tuple(row.values()) for row in found]


@pytest.fixture
def before(empty_database_url: str) -> Iterator[Before]:
    made = Before(empty_database_url)
    yield made
    made.sql.close()


async def test_lines_from_before_share_the_newest_key_s_quotas(before: Before) -> None:
    first = before.key("first00000")
    before.quota(first, "month", 100)
    before.place(first, 7, 5)
    open_hold = before.place(first, 8)
    middle = before.key("middle0000", first)
    before.quota(middle, "day", 30)
    newest = before.key("newest0000", middle)
    month, total = before.quota(newest, "month", 200), before.quota(newest, "total", 300)
    alone = before.key("alone00000")
    own = before.quota(alone, "month", 50)
    before.place(first, 1, 1)  # in the overlap: on its own counter alone
    before.place(middle, 2)
    before.place(newest, 4, 3)
    before.place(alone, 9)
    migrate.upgrade(before.url, "0004")
    lines = before.sql.execute("SELECT id, quota_key_id FROM team_keys ORDER BY id").fetchall()
    assert {row["id"]: row["quota_key_id"] for row in lines} == {
        first: first, middle: first, newest: first, alone: alone
    }  # fmt: skip
    assert before.counters(first) == [(month, "month", 9, 10), (total, "total", 9, 10)]
    assert before.counters(alone) == [(own, "month", 0, 9)]
    assert len(before.sql.execute("SELECT FROM quotas").fetchall()) == 3, "those of older keys are gone"
    before.sql.execute(
        "SELECT * FROM gateway_end(%s)",
        (json.dumps([{"id": str(open_hold), "state": "settled", "settled": 6}]),),
    )
    before.place(middle, 1, 1)
    assert before.counters(first) == [(month, "month", 16, 2), (total, "total", 16, 2)]
    assert differences(before.url) == []


async def test_a_downgrade_gives_every_key_quotas_of_its_own_again(before: Before) -> None:
    old = before.key("old0000000")
    before.quota(old, "month", 100)
    new = before.key("new0000000", old)
    before.quota(new, "month", 100)
    migrate.upgrade(before.url, "0004")
    before.place(old, 5, 4)
    before.place(new, 3)
    migrate.downgrade(before.url, "0003")
    [(_, period, settled, held)] = before.counters(new)
    assert (period, settled, held) == ("month", 4, 3)
    before.place(old, 2)
    [(_, _, settled, held)] = before.counters(old)
    assert (settled, held) == (4, 2), "what it has spent itself"
    assert differences(before.url) == []
    migrate.upgrade(before.url, "0004")
    [(_, _, settled, held)] = before.counters(old)
    assert (settled, held) == (4, 5)
    assert differences(before.url) == []


def differences(url: str) -> list[object]:
    """What the counters say beside their entries and the open holds on them."""
    query = """
        SELECT p.id FROM quota_periods p
        FULL JOIN (SELECT c, sum(held) AS held, sum(settled) AS settled
                   FROM ledger_entries, unnest(counters) c GROUP BY c) e ON e.c = p.id
        LEFT JOIN (SELECT c, sum(quote) AS held FROM holds, unnest(counters) c
                   WHERE state IN ('held', 'unknown') GROUP BY c) o ON o.c = coalesce(p.id, e.c)
        WHERE (coalesce(p.held, 0), coalesce(p.settled, 0)) <> (coalesce(e.held, 0), coalesce(e.settled, 0))
           OR coalesce(p.held, 0) <> coalesce(o.held, 0)
    """
    with psycopg.connect(address(url)) as connection:
        return list(connection.execute(query))
