"""The pool on a real Postgres: changes arrive with a refresh, and rests are shared between processes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import case, func, select, text

from gateway.db.tables import upstream_keys as table
from gateway.errors import GatewayError
from gateway.pool import upstream_keys
from gateway.pool.pool import Pool, UpstreamKey
from gateway.pool.upstream_keys import NewUpstreamKey
from gateway.upstream.outcomes import Outcome, Verdict
from tests.fakes.clock import FakeClock
from tests.fakes.flaky_database import FlakyDatabase
from tests.fakes.key_table import VAULT
from tests.fakes.stored import ACTOR


class Rig:
    """A database without keys, and pools of several processes on it."""

    def __init__(self, database: FlakyDatabase) -> None:
        self.database = database
        self.clock = FakeClock()

    async def pool(self, clock: FakeClock | None = None) -> Pool:
        pool = Pool(self.database, VAULT, clock or self.clock, Random(1))
        await pool.refresh()
        return pool

    async def add(self, label: str, **fields: object) -> UUID:
        new = NewUpstreamKey(label=label, secret=f"sk_live_{label}", **fields)  # type: ignore[arg-type]
        async with self.database.transaction() as connection:
            return (await upstream_keys.add(connection, ACTOR, VAULT, new)).id

    async def change(self, verb: Callable[..., object], label: str, *rest: object) -> None:
        """One admin's verb on a key."""
        async with self.database.transaction() as connection:
            await verb(connection, ACTOR, label, *rest)  # type: ignore[misc]


@pytest.fixture
async def rig(database: FlakyDatabase) -> Rig:
    async with database.transaction() as connection:
        await connection.execute(table.delete())
    return Rig(database)


def any_key(_: UpstreamKey) -> bool:
    return True


def leased(pool: Pool) -> str:
    """The label of the key the next paid call gets, or the reason why it gets none."""
    try:
        lease = pool.lease_paid(any_key)
    except GatewayError as error:
        return error.reason
    pool.release(lease)
    return lease.key.label


async def rest(pool: Pool, verdict: Verdict, retry_after: float | None = None) -> None:
    """One paid call with this end."""
    pool.report(await pool.take_paid(any_key), Outcome(verdict, retry_after=retry_after))
    await pool.close()


async def test_a_refresh_picks_up_what_an_admin_changed(rig: Rig) -> None:
    pool = await rig.pool()
    assert leased(pool) == "no_upstream_key"
    await rig.add("main", account="acme", weight=3, max_in_flight=7)
    await pool.refresh()
    (key,) = pool.keys
    assert (key.label, key.account, key.secret) == ("main", "acme", "sk_live_main")
    assert (key.weight, key.max_in_flight, key.state) == (3, 7, "active")
    await rig.change(upstream_keys.update, "main", {"weight": 1, "label": "first"})
    await pool.refresh()
    assert (pool.keys[0].label, pool.keys[0].weight) == ("first", 1)
    await rig.change(upstream_keys.drain, "first")
    await pool.refresh()
    assert leased(pool) == "no_upstream_key"
    assert pool.lease_read("acme").key.label == "first"
    await rig.change(upstream_keys.disable, "first")
    await pool.refresh()
    with pytest.raises(GatewayError):
        pool.lease_read("acme")
    await rig.change(upstream_keys.enable, "first")
    await pool.refresh()
    assert leased(pool) == "first"
    await rig.change(upstream_keys.remove, "first")
    await pool.refresh()
    assert pool.keys == []


@pytest.mark.parametrize(
    ("verdict", "asked", "reason", "seconds"),
    [
        (Verdict.THROTTLED, 7.0, "upstream_throttled", 7),
        (Verdict.KEY_REFUSED, None, "upstream_keys_resting", 60),
        (Verdict.KEY_EXHAUSTED, None, "upstream_keys_resting", 300),
    ],
)
async def test_a_rest_is_written_down_and_seen_by_another_process(
    rig: Rig, verdict: Verdict, asked: float | None, reason: str, seconds: float
) -> None:
    await rig.add("main")
    first, elsewhere = await rig.pool(), FakeClock(monotonic_start=5_000_000.0)
    second = await rig.pool(elsewhere)
    await rest(first, verdict, asked)
    assert leased(second) == "main"
    await second.refresh()
    assert (leased(first), leased(second)) == (reason, reason)
    elsewhere.forward(seconds - 5)
    assert leased(second) == reason
    elsewhere.forward(6)
    # A refused key waits for the model list.
    assert leased(second) == (reason if verdict is Verdict.KEY_REFUSED else "main")


async def test_a_rest_of_reads_is_of_reads_alone_elsewhere_too(rig: Rig) -> None:
    await rig.add("main", account="acme")
    first, second = await rig.pool(), await rig.pool()
    first.report(first.lease_read("acme"), Outcome(Verdict.THROTTLED, retry_after=30.0))
    await first.close()
    await second.refresh()
    assert leased(second) == "main"
    with pytest.raises(GatewayError, match="slow down"):
        second.lease_read("acme")


async def test_ordinary_answers_elsewhere_do_not_end_a_rest(rig: Rig) -> None:
    await rig.add("main")
    first, second = await rig.pool(), await rig.pool()
    running = second.lease_paid(any_key)
    await rest(first, Verdict.KEY_EXHAUSTED)
    second.report(running, Outcome(Verdict.ANSWERED))
    await second.close()
    await first.refresh()
    await second.refresh()
    assert leased(first) == leased(second) == "upstream_keys_resting"


async def test_empty_accounts_rest_longer_each_time_whoever_finds_out(rig: Rig) -> None:
    key = await rig.add("main")
    first, second = await rig.pool(), await rig.pool()
    await rest(first, Verdict.KEY_EXHAUSTED)
    rig.clock.forward(301)
    await _let_the_rest_be_over(rig)
    await second.refresh()
    await rest(second, Verdict.KEY_EXHAUSTED)
    row = await _row(rig, key)
    assert (row.rest_reason, row.rest_count) == ("out_of_credits", 2)
    rig.clock.forward(599)
    assert leased(second) == "upstream_keys_resting"
    rig.clock.forward(2)
    await _let_the_rest_be_over(rig)
    await second.refresh()
    await rest(second, Verdict.ANSWERED)
    row = await _row(rig, key)
    assert (row.rest_reason, row.rest_count, row.paid_rests_until) == (None, 0, None)


async def test_enabling_a_key_ends_its_rest_everywhere(rig: Rig) -> None:
    await rig.add("main")
    first, second = await rig.pool(), await rig.pool()
    await rest(first, Verdict.KEY_REFUSED)
    await rig.change(upstream_keys.enable, "main")
    rig.clock.forward(2)
    for pool in (first, second):
        await pool.refresh()
        assert leased(pool) == "main"


@pytest.mark.parametrize("swapped", [False, True])
async def test_rests_of_two_processes_add_up_in_either_order(rig: Rig, swapped: bool) -> None:
    key = await rig.add("main", account="acme")
    reading, paying = await rig.pool(), await rig.pool()
    lease, paid = reading.lease_read("acme"), paying.lease_paid(any_key)
    words = [
        (reading, lease, Outcome(Verdict.THROTTLED, retry_after=30.0)),
        (paying, paid, Outcome(Verdict.KEY_EXHAUSTED)),
    ]
    for pool, used, outcome in reversed(words) if swapped else words:
        pool.report(used, outcome)
        await pool.close()
    row = await _row(rig, key)
    assert (row.rest_reason, row.rest_count) == ("out_of_credits", 1)
    assert await _rests(rig) == pytest.approx((300, 30), abs=5)


@pytest.mark.parametrize("order", [1, -1])
async def test_of_two_rests_the_longer_one_stands(rig: Rig, order: int) -> None:
    key = await rig.add("main")
    long, short = await rig.pool(), await rig.pool()
    outcomes = [(long, Verdict.KEY_EXHAUSTED), (short, Verdict.THROTTLED)]
    for pool, verdict in outcomes[::order]:
        await rest(pool, verdict, 20.0)
    row = await _row(rig, key)
    assert (row.rest_reason, row.rest_count) == ("out_of_credits", 1)
    assert (await _rests(rig))[0] == pytest.approx(300, abs=5)
    rig.clock.forward(1)
    await short.refresh()
    assert leased(short) == "upstream_keys_resting"


async def test_an_answer_forgets_only_the_rest_its_process_knew(rig: Rig) -> None:
    key = await rig.add("main")
    first, elsewhere = await rig.pool(), FakeClock()
    second = await rig.pool(elsewhere)
    await rest(first, Verdict.THROTTLED, 1.0)
    await second.refresh()
    rig.clock.forward(2)
    elsewhere.forward(2)
    running = first.lease_paid(any_key)
    await rest(second, Verdict.KEY_EXHAUSTED)
    first.report(running, Outcome(Verdict.ANSWERED))
    await first.close()
    row = await _row(rig, key)
    assert (row.rest_reason, row.rest_count) == ("out_of_credits", 1)
    rig.clock.forward(1)
    await first.refresh()
    assert leased(first) == "upstream_keys_resting"


async def test_an_answer_to_a_paid_call_leaves_another_process_s_rest_of_reads(rig: Rig) -> None:
    key = await rig.add("main", account="acme")
    first, second = await rig.pool(), await rig.pool()
    await rest(first, Verdict.THROTTLED, 1.0)
    rig.clock.forward(2)
    await _let_the_rest_be_over(rig)
    second.report(second.lease_read("acme"), Outcome(Verdict.THROTTLED, retry_after=30.0))
    await second.close()
    await rest(first, Verdict.ANSWERED)
    assert (await _row(rig, key)).rest_reason == "throttled"
    assert await _rests(rig) == pytest.approx((0, 30), abs=5)


@pytest.mark.parametrize("rested", [True, False], ids=["a rest to end", "nothing to end"])
async def test_a_rest_noted_before_enable_does_not_come_back_after_it(rig: Rig, rested: bool) -> None:
    key = await rig.add("main")
    pool = await rig.pool()
    running = pool.lease_paid(any_key)
    if rested:
        await rest(pool, Verdict.THROTTLED, 1.0)
        rig.clock.forward(2)
    gate = rig.database.hold_up()
    pool.report(running, Outcome(Verdict.KEY_EXHAUSTED))
    await gate.reached.wait()
    await rig.change(upstream_keys.enable, "main")
    rig.clock.forward(10)  # the write was noted that long ago
    gate.opened.set()
    await pool.close()
    row = await _row(rig, key)
    assert (row.rest_reason, row.rest_count, row.paid_rests_until) == (None, 0, None)
    rig.clock.forward(1)
    await pool.refresh()
    assert leased(pool) == "main"


async def test_a_secret_copied_to_another_row_is_not_used(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = await rig.add("good"), await rig.add("bad")
    async with rig.database.transaction() as connection:
        sealed = select(table.c.secret).where(table.c.id == good).scalar_subquery()
        await connection.execute(table.update().where(table.c.id == bad).values(secret=sealed))
    pool = await rig.pool()
    assert [key.label for key in pool.keys] == ["good"]
    assert "upstream key cannot be opened" in caplog.text


async def test_without_postgres_the_pool_goes_on_with_what_it_knows(rig: Rig) -> None:
    await rig.add("main")
    pool = await rig.pool()
    rig.database.down = True
    with pytest.raises(GatewayError) as caught:
        await pool.refresh()
    assert caught.value.status == 503
    assert leased(pool) == "main"
    await rest(pool, Verdict.THROTTLED, 5.0)
    assert leased(pool) == "upstream_throttled"
    rig.database.down = False


async def _row(rig: Rig, key: UUID) -> Any:
    async with rig.database.autocommit() as connection:
        return (await connection.execute(select(table).where(table.c.id == key))).one()


async def _rests(rig: Rig) -> tuple[float, float]:
    """Seconds the one key still rests, from paid calls and from reads."""
    rests = {"paid": table.c.paid_rests_until, "reads": table.c.reads_rest_until}
    query = select(
        *(
            case((until > func.now(), func.extract("epoch", until - func.now()))).label(use)
            for use, until in rests.items()
        )
    )
    async with rig.database.autocommit() as connection:
        row = (await connection.execute(query)).one()
        return float(row.paid or 0), float(row.reads or 0)


async def _let_the_rest_be_over(rig: Rig) -> None:
    """The database's clock cannot be moved, so the rest is."""
    async with rig.database.transaction() as connection:
        past = {"paid_rests_until": text("now() - interval '1 ms'"), "reads_rest_until": None}
        await connection.execute(table.update().where(table.c.rest_reason.is_not(None)).values(**past))
