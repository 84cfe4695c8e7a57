"""Keys that heal, on a real Postgres: checks and trials are one process's, every change is audited once and told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from gateway.cache.client import CacheClient
from gateway.clock import SystemClock
from gateway.db.tables import audit_entries
from gateway.db.tables import upstream_keys as table
from gateway.errors import GatewayError
from gateway.limits.limits import Limits
from gateway.pool import upstream_keys
from gateway.pool.caps import Caps
from gateway.pool.checks import Checks
from gateway.pool.dispatch import Dispatcher
from gateway.pool.pool import Lease, Pool, UpstreamKey
from gateway.pool.upstream_keys import NewUpstreamKey
from gateway.telemetry import Metrics
from gateway.upstream.client import Call
from gateway.upstream.outcomes import Outcome, Trouble, Verdict
from tests.fakes.cache import GoneCache, cache_client
from tests.fakes.flaky_database import FlakyDatabase
from tests.fakes.key_table import VAULT
from tests.fakes.stored import ACTOR
from tests.fakes.upstream import Answer, FakeUpstream, Reaction

LIST = Answer(200, b'{"object":"list","data":[]}')
NO = Answer(401, b'{"error":{"code":"invalid_api_key","message":"m"}}')


class Process:
    """One gateway process: its pool, its checks, and what it has announced."""

    def __init__(self, rig: Rig, caps: Caps | None = None) -> None:
        clock = SystemClock()
        self.told: list[str] = []
        self.pool = Pool(rig.database, VAULT, clock, Random(1), caps=caps, announce=self.told.append)
        self.upstream = FakeUpstream(rig.react)
        dispatcher = Dispatcher(self.pool, self.upstream, clock)
        self.checks = Checks(rig.database, self.pool, dispatcher, clock, self.told.append)

    async def check(self) -> int:
        """Makes the checks that are due; how often Pixapi was asked."""
        before = len(self.upstream.calls)
        await self.pool.refresh()
        await self.checks.once()
        await self.checks.ended()
        return len(self.upstream.calls) - before

    async def says(self, outcome: Outcome) -> None:
        """A paid call ended so."""
        lease = await self.pool.take_paid(any_key)
        self.pool.report(lease, outcome)
        await self.pool.close()


class Rig:
    def __init__(self, database: FlakyDatabase) -> None:
        self.database = database
        self.answer: Reaction = LIST

    def react(self, _: Call) -> Reaction:
        return self.answer

    async def process(self, caps: Caps | None = None) -> Process:
        process = Process(self, caps)
        await process.pool.refresh()
        return process

    async def add(self, label: str, **fields: Any) -> UUID:
        new = NewUpstreamKey(label=label, secret=f"sk_live_{label}", **fields)
        async with self.database.transaction() as connection:
            return (await upstream_keys.add(connection, ACTOR, VAULT, new)).id

    async def change(self, verb: Callable[..., Any], label: str) -> None:
        async with self.database.transaction() as connection:
            await verb(connection, ACTOR, label)

    async def row(self, label: str) -> Any:
        async with self.database.autocommit() as connection:
            return (await connection.execute(select(table).where(table.c.label == label))).one()

    async def pass_by(self, seconds: float) -> None:
        """Makes every moment of the rows lie that much earlier."""
        names = ("paid_rests_until", "reads_rest_until", "next_check_at", "checking_until", "trial_until")
        earlier = {name: text(f"{name} - make_interval(secs => {seconds})") for name in names}
        async with self.database.transaction() as connection:
            await connection.execute(table.update().values(**earlier))

    async def audited(self, key: UUID) -> list[tuple[str, str | None]]:
        """The actions and reasons of what was audited of a key, without its making."""
        query = (
            select(audit_entries)
            .where(audit_entries.c.subject_id == str(key), audit_entries.c.actor == "gateway")
            .order_by(audit_entries.c.id)
        )
        async with self.database.autocommit() as connection:
            rows = (await connection.execute(query)).all()
        return [(row.action.removeprefix("upstream-key."), row.detail.get("reason")) for row in rows]


@pytest.fixture
async def rig(database: FlakyDatabase) -> Rig:
    async with database.transaction() as connection:
        await connection.execute(table.delete())
    return Rig(database)


def any_key(_: UpstreamKey) -> bool:
    return True


async def leased(pool: Pool) -> str:
    """The label of the key the next paid call gets, or the reason why it gets none."""
    try:
        lease = await pool.take_paid(any_key)
    except GatewayError as error:
        return error.reason
    pool.release(lease)
    await pool.close()
    return lease.key.label


# Refused ---------------------------------------------------------------------------------------------------


async def test_refused_by_the_list_too_a_key_is_off_until_the_list_accepts_it(rig: Rig) -> None:
    key = await rig.add("main")
    one, other = await rig.process(), await rig.process()
    rig.answer = NO
    await one.says(Outcome(Verdict.KEY_REFUSED))
    assert await one.check() + await other.check() == 1
    row = await rig.row("main")
    assert (row.state, row.rest_reason) == ("refused", "refused")
    assert row.state_reason == "refused by Pixapi, its model list too"
    assert await leased(other.pool) == "no_upstream_key"
    assert await one.check() + await other.check() == 0

    await rig.pass_by(301)
    assert await one.check() + await other.check() == 1
    assert (await rig.row("main")).state == "refused"
    rig.answer = LIST
    await rig.pass_by(301)
    assert await other.check() == 1
    row = await rig.row("main")
    assert (row.state, row.state_reason, row.rest_reason, row.next_check_at) == ("active", None, None, None)
    await one.pool.refresh()
    assert await leased(one.pool) == await leased(other.pool) == "main"
    assert await rig.audited(key) == [
        ("rest", "refused"),
        ("refuse", "refused by Pixapi, its model list too"),
        ("recover", "accepted by Pixapi's model list"),
    ]
    assert set(one.told) | set(other.told) == {str(key)}
    assert all(call.path == "/v1/models" for call in one.upstream.calls + other.upstream.calls)


async def test_accepted_by_the_list_a_refused_key_is_back_after_its_minute(rig: Rig) -> None:
    key = await rig.add("main")
    one = await rig.process()
    await one.says(Outcome(Verdict.KEY_REFUSED))
    assert await one.check() == 1
    assert await leased(one.pool) == "upstream_keys_resting"
    await rig.pass_by(61)
    await one.pool.refresh()
    assert await leased(one.pool) == "upstream_keys_resting"  # not before the list has said so
    assert await one.check() == 1
    assert await leased(one.pool) == "main"
    assert await rig.audited(key) == [("rest", "refused"), ("recover", "accepted by Pixapi's model list")]


async def test_many_processes_make_one_check_and_one_audit_entry(rig: Rig) -> None:
    key = await rig.add("main")
    processes = [await rig.process() for _ in range(4)]
    rig.answer = NO
    leases = [[await one.pool.take_paid(any_key) for _ in range(5)] for one in processes]
    for one, mine in zip(processes, leases, strict=True):
        for lease in mine:
            one.pool.report(lease, Outcome(Verdict.KEY_REFUSED))
    await asyncio.gather(*(one.pool.close() for one in processes))
    assert sum(await asyncio.gather(*(one.check() for one in processes))) == 1
    assert [action for action, _ in await rig.audited(key)] == ["rest", "refuse"]


async def test_enable_during_a_check_is_the_last_word(rig: Rig) -> None:
    await rig.add("main")
    one = await rig.process()
    rig.answer = NO
    await one.says(Outcome(Verdict.KEY_REFUSED))
    one.upstream.gate.clear()
    checking = asyncio.create_task(one.check())
    while not one.upstream.calls:
        await asyncio.sleep(0.01)
    await rig.change(upstream_keys.enable, "main")
    one.upstream.gate.set()
    await checking
    row = await rig.row("main")
    assert (row.state, row.rest_reason, row.next_check_at) == ("active", None, None)
    assert await leased(one.pool) == "main"


async def test_a_check_that_a_killed_process_began_is_made_by_another(rig: Rig) -> None:
    await rig.add("main")
    one, other = await rig.process(), await rig.process()
    rig.answer = NO
    await one.says(Outcome(Verdict.KEY_REFUSED))
    one.upstream.gate.clear()
    checking = asyncio.create_task(one.check())
    while not one.upstream.calls:
        await asyncio.sleep(0.01)
    await one.checks.close()
    checking.cancel()
    assert await other.check() == 0
    await rig.pass_by(21)
    other = await rig.process()
    assert await other.check() == 1
    assert (await rig.row("main")).state == "refused"


async def test_a_draining_key_that_is_refused_goes_on_draining(rig: Rig) -> None:
    await rig.add("main", account="acme")
    await rig.change(upstream_keys.drain, "main")
    one = await rig.process()
    rig.answer = NO
    one.pool.report(one.pool.lease_read("acme"), Outcome(Verdict.KEY_REFUSED))
    await one.pool.close()
    assert await one.check() == 1
    assert (await rig.row("main")).state == "draining"
    with pytest.raises(GatewayError):
        one.pool.lease_read("acme")
    rig.answer = LIST
    await rig.pass_by(301)
    assert await one.check() == 1
    assert one.pool.lease_read("acme").key.label == "main"
    assert (await rig.row("main")).state == "draining"


async def test_a_disabled_key_is_not_asked_about(rig: Rig) -> None:
    await rig.add("main")
    one = await rig.process()
    await one.says(Outcome(Verdict.KEY_REFUSED))
    await rig.change(upstream_keys.disable, "main")
    await rig.pass_by(301)
    assert await one.check() == 0


# The breaker -----------------------------------------------------------------------------------------------


async def test_a_key_that_fails_is_open_everywhere_and_closed_by_the_list(rig: Rig) -> None:
    key = await rig.add("broken")
    one, other = await rig.process(), await rig.process()
    leases = [await one.pool.take_paid(any_key) for _ in range(5)]
    await rig.add("well")
    await one.pool.refresh()
    for lease in leases:
        one.pool.report(lease, Outcome(Verdict.UNKNOWN, trouble=Trouble.BARE))
    await one.pool.close()
    await other.pool.refresh()
    assert {await leased(process.pool) for process in (one, other) for _ in range(9)} == {"well"}
    assert one.told == [str(key)]
    assert await one.check() + await other.check() == 0  # not before its 30 s are over

    rig.answer = Answer(502)
    await rig.pass_by(31)
    assert await one.check() + await other.check() == 1
    assert (await rig.row("broken")).rest_count == 2
    rig.answer = LIST
    await rig.pass_by(61)
    assert await other.check() + await one.check() == 1
    assert {await leased(other.pool) for _ in range(20)} == {"broken", "well"}
    assert await rig.audited(key) == [
        ("rest", "failing"),
        ("rest", "failing"),
        ("recover", "accepted by Pixapi's model list"),
    ]


# Empty accounts --------------------------------------------------------------------------------------------


async def test_of_all_processes_one_call_tries_an_empty_account(rig: Rig) -> None:
    key = await rig.add("main")
    processes = [await rig.process() for _ in range(3)]
    await processes[0].says(Outcome(Verdict.KEY_EXHAUSTED))
    await rig.pass_by(301)
    for one in processes:
        await one.pool.refresh()
    wanted = [one for one in processes for _ in range(5)]
    found = await asyncio.gather(*(one.pool.take_paid(any_key) for one in wanted), return_exceptions=True)
    ((owner, trial),) = [(one, got) for one, got in zip(wanted, found, strict=True) if isinstance(got, Lease)]
    assert {error.reason for error in found if isinstance(error, GatewayError)} == {"upstream_keys_resting"}
    owner.pool.report(trial, Outcome(Verdict.ANSWERED))
    await owner.pool.close()
    for one in processes:
        await one.pool.refresh()
        assert await leased(one.pool) == "main"
    assert await rig.audited(key) == [("rest", "out_of_credits"), ("recover", "a paid call was answered")]


async def test_a_trial_that_shows_nothing_is_somebody_else_s_next(rig: Rig) -> None:
    await rig.add("main")
    one, other = await rig.process(), await rig.process()
    await one.says(Outcome(Verdict.KEY_EXHAUSTED))
    await rig.pass_by(301)
    await one.pool.refresh()
    await one.says(Outcome(Verdict.REJECTED))
    await other.pool.refresh()
    await other.says(Outcome(Verdict.KEY_EXHAUSTED))
    assert (await rig.row("main")).rest_count == 2


# What is told, and caps -------------------------------------------------------------------------------------


async def test_a_thousand_refusals_at_once_are_few_writes_and_one_entry(rig: Rig) -> None:
    key = await rig.add("main")
    one = await rig.process()
    leases = [await one.pool.take_paid(any_key) for _ in range(1000)]
    asked = rig.database.asked
    for lease in leases:
        one.pool.report(lease, Outcome(Verdict.THROTTLED, retry_after=20.0))
    await one.pool.close()
    assert rig.database.asked - asked <= 3
    assert await rig.audited(key) == [("rest", "throttled")]


@pytest.fixture
async def cache(redis_url: str) -> Any:
    async with cache_client(redis_url, timeout=2.0) as cache:  # a busy machine is no matter here
        yield cache


def caps(cache: CacheClient) -> Caps:
    return Caps(Limits(cache, SystemClock(), Metrics()))


async def all_taken(processes: list[Process], each: int) -> list[Lease]:
    wanted = (one.pool.take_paid(any_key) for one in processes for _ in range(each))
    found = await asyncio.gather(*wanted, return_exceptions=True)
    assert {error.reason for error in found if isinstance(error, GatewayError)} <= {"upstream_keys_full"}
    return [lease for lease in found if isinstance(lease, Lease)]


async def test_a_cap_holds_over_processes_while_redis_is_there(rig: Rig, cache: CacheClient) -> None:
    await rig.add("small", max_in_flight=3)
    processes = [await rig.process(caps(cache)) for _ in range(3)]
    leases = await all_taken(processes, 4)
    assert len(leases) == 3
    for one in processes:
        assert await leased(one.pool) == "upstream_keys_full"
    processes[0].pool.release(leases[0])
    async with asyncio.timeout(5):
        while await leased(processes[1].pool) != "small":
            await asyncio.sleep(0.01)
    assert len(await all_taken(processes, 1)) == 1


async def test_a_full_key_is_passed_over_for_another(rig: Rig, cache: CacheClient) -> None:
    await rig.add("small", max_in_flight=1, weight=1000)
    await rig.add("wide")
    processes = [await rig.process(caps(cache)) for _ in range(2)]
    leases = await all_taken(processes, 5)
    assert sorted(lease.key.label for lease in leases) == ["small"] + ["wide"] * 9


async def test_without_redis_each_process_holds_the_cap_alone(rig: Rig) -> None:
    await rig.add("small", max_in_flight=3)
    processes = [await rig.process(caps(GoneCache())) for _ in range(2)]
    assert len(await all_taken(processes, 5)) == 6


async def test_a_key_without_a_cap_asks_nobody(rig: Rig) -> None:
    await rig.add("wide")
    gone = GoneCache()
    one = await rig.process(caps(gone))
    asked = rig.database.asked
    assert len(await all_taken([one], 20)) == 20
    assert (gone.asked, rig.database.asked) == (0, asked)
