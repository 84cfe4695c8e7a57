"""Leases: which keys may be used for what, and what the caller hears when none can."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from gateway.errors import GatewayError
from gateway.pool.pool import Lease, Pool, UpstreamKey
from gateway.upstream.outcomes import Outcome, Verdict
from tests.fakes.clock import FakeClock
from tests.fakes.key_table import VAULT, KeyTable, pool_of


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def table() -> KeyTable:
    return KeyTable()


def any_key(_: UpstreamKey) -> bool:
    return True


def refused(pool: Pool, **options: list[UUID]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        pool.lease_paid(any_key, **options)
    return caught.value


def labels(leases: list[Lease]) -> list[str]:
    return sorted(lease.key.label for lease in leases)


async def test_only_active_keys_that_serve_the_call_are_leased(table: KeyTable, clock: FakeClock) -> None:
    for state in ("active", "draining", "disabled", "refused"):
        table.add(state, state=state)
    table.add("other")
    pool = await pool_of(table, clock)
    assert pool.accounts() == {"active", "other"}
    assert {pool.lease_paid(any_key).key.label for _ in range(20)} == {"active", "other"}
    assert pool.lease_paid(lambda key: key.account == "other").key.secret == "sk_other"
    with pytest.raises(GatewayError) as caught:
        pool.lease_paid(lambda key: key.account == "draining")
    assert (caught.value.status, caught.value.reason) == (503, "no_upstream_key")


async def test_reads_go_to_the_preferred_key_or_a_sibling_also_while_it_drains(
    table: KeyTable, clock: FakeClock
) -> None:
    own = table.add("own", account="a", state="draining")
    table.add("sibling", account="a")
    table.add("off", account="a", state="disabled")
    table.add("stranger", account="b")
    pool = await pool_of(table, clock)
    assert [pool.lease_read("a", own).key.label for _ in range(5)] == ["own"] * 5
    pool.report(pool.lease_read("a", own), Outcome(Verdict.THROTTLED, retry_after=5.0))
    assert pool.lease_read("a", own).key.label == "sibling"
    clock.forward(5)
    assert pool.lease_read("a", own).key.label == "own"
    with pytest.raises(GatewayError) as caught:
        pool.lease_read("c")
    assert caught.value.reason == "no_upstream_key"


async def test_caps_bound_paid_calls_and_not_reads(table: KeyTable, clock: FakeClock) -> None:
    table.add("small", account="a", max_in_flight=2)
    pool = await pool_of(table, clock)
    leases = [pool.lease_paid(any_key) for _ in range(2)]
    error = refused(pool)
    assert (error.status, error.type, error.reason, error.retry) == (
        503,
        "upstream_unavailable",
        "upstream_keys_full",
        True,
    )
    assert [pool.lease_read("a") for _ in range(5)]
    pool.release(leases[0])
    pool.release(leases[0])
    assert pool.lease_paid(any_key)
    assert refused(pool).reason == "upstream_keys_full"


async def test_running_calls_spread_by_weight(table: KeyTable, clock: FakeClock) -> None:
    table.add("heavy", weight=3)
    table.add("light", weight=1)
    pool = await pool_of(table, clock)
    leases = [pool.lease_paid(any_key) for _ in range(8)]
    assert labels(leases) == ["heavy"] * 6 + ["light"] * 2


async def test_an_account_is_ready_while_one_of_its_keys_could_take_a_call(
    table: KeyTable, clock: FakeClock
) -> None:
    table.add("small", account="a", max_in_flight=1)
    table.add("resting", account="b")
    table.add("off", account="c", state="draining")
    pool = await pool_of(table, clock)
    assert pool.ready_accounts() == {"a", "b"}
    lease = pool.lease_paid(lambda key: key.account == "a")
    slow = Outcome(Verdict.THROTTLED, retry_after=60.0)
    pool.report(pool.lease_paid(lambda key: key.account == "b"), slow)
    assert pool.ready_accounts() == set()
    pool.release(lease)
    clock.forward(60)
    assert pool.ready_accounts() == {"a", "b"}
    await pool.close()


async def test_a_tried_key_is_left_out(table: KeyTable, clock: FakeClock) -> None:
    first, second = table.add("first"), table.add("second")
    pool = await pool_of(table, clock)
    assert {pool.lease_paid(any_key, without=[first]).key.label for _ in range(10)} == {"second"}
    assert refused(pool, without=[first, second]).reason == "no_upstream_key"


async def test_all_keys_too_fast_is_429_with_the_shortest_wait(table: KeyTable, clock: FakeClock) -> None:
    for number in range(3):
        table.add(f"key-{number}")
    pool = await pool_of(table, clock)
    for lease, seconds in [(pool.lease_paid(any_key), wait) for wait in (30.0, 20.0, 40.0)]:
        pool.report(lease, Outcome(Verdict.THROTTLED, retry_after=seconds))
    clock.forward(5)
    error = refused(pool)
    assert (error.status, error.reason, error.retry) == (429, "upstream_throttled", True)
    assert error.headers["retry-after"] == "15"
    clock.forward(15)
    assert pool.lease_paid(any_key)


async def test_keys_that_are_empty_or_refused_are_503(table: KeyTable, clock: FakeClock) -> None:
    table.add("empty")
    table.add("refused")
    pool = await pool_of(table, clock)
    first, second = pool.lease_paid(any_key), pool.lease_paid(any_key)
    pool.report(first, Outcome(Verdict.KEY_EXHAUSTED))
    pool.report(second, Outcome(Verdict.KEY_REFUSED))
    error = refused(pool)
    assert (error.status, error.reason, error.headers["retry-after"]) == (503, "upstream_keys_resting", "10")
    await pool.close()


async def test_a_rest_is_written_and_an_ordinary_answer_is_not(table: KeyTable, clock: FakeClock) -> None:
    table.add("key")
    pool = await pool_of(table, clock)
    for verdict in (Verdict.ANSWERED, Verdict.REJECTED, Verdict.UNKNOWN, Verdict.NOT_SENT):
        pool.report(pool.lease_paid(any_key), Outcome(verdict))
    await pool.close()
    assert table.writes == []
    pool.report(pool.lease_paid(any_key), Outcome(Verdict.KEY_EXHAUSTED))
    await pool.close()
    (write,) = table.writes
    assert "out_of_credits" in write.values()


async def test_a_refusal_that_prolongs_nothing_writes_nothing(table: KeyTable, clock: FakeClock) -> None:
    table.add("key")
    pool = await pool_of(table, clock)
    leases = [pool.lease_paid(any_key) for _ in range(3)]
    for lease in leases:
        pool.report(lease, Outcome(Verdict.KEY_REFUSED))
    await pool.close()
    assert len(table.writes) == 1


async def test_a_refresh_loses_none_of_two_words_on_their_way(table: KeyTable, clock: FakeClock) -> None:
    table.add("key")
    pool = await pool_of(table, clock)
    slow = table.hold_a_write_up()
    pool.report(pool.lease_read("key"), Outcome(Verdict.THROTTLED, retry_after=30.0))
    pool.report(pool.lease_paid(any_key), Outcome(Verdict.THROTTLED, retry_after=30.0))
    await asyncio.sleep(0.01)
    clock.forward(1)
    await pool.refresh()
    with pytest.raises(GatewayError, match="slow down"):
        pool.lease_read("key")
    slow.set()
    await pool.close()


async def test_a_rest_that_is_not_written_yet_survives_a_refresh(table: KeyTable, clock: FakeClock) -> None:
    table.add("key")
    pool = await pool_of(table, clock)
    pool.report(pool.lease_paid(any_key), Outcome(Verdict.KEY_REFUSED))
    await pool.refresh()
    assert refused(pool).reason == "upstream_keys_resting"
    await pool.close()
    clock.forward(1)
    await pool.refresh()  # the row says that an admin has enabled it meanwhile
    assert pool.lease_paid(any_key)


async def test_a_database_that_is_down_changes_no_lease(table: KeyTable, clock: FakeClock) -> None:
    table.add("key")
    pool = await pool_of(table, clock)
    table.down = True
    with pytest.raises(GatewayError):
        await pool.refresh()
    pool.report(pool.lease_paid(any_key), Outcome(Verdict.THROTTLED, retry_after=5.0))
    await pool.close()
    assert refused(pool).status == 429
    clock.forward(5)
    assert pool.lease_paid(any_key)


async def test_a_key_that_does_not_open_is_left_out_and_logged(
    table: KeyTable, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    table.add("good")
    table.add("bad")
    table.rows[-1].secret = table.rows[0].secret
    pool = await pool_of(table, clock)
    assert [key.label for key in pool.keys] == ["good"]
    assert "another row" in str(vars(caplog.records[0])["reason"])


async def test_a_secret_that_was_stored_anew_is_opened_anew(table: KeyTable, clock: FakeClock) -> None:
    key = table.add("key")
    pool = await pool_of(table, clock)
    table.rows[0].secret = VAULT.seal(key, "sk_another")
    await pool.refresh()
    assert pool.lease_paid(any_key).key.secret == "sk_another"


async def test_calls_in_flight_count_whatever_is_read_meanwhile(table: KeyTable, clock: FakeClock) -> None:
    key = table.add("small", max_in_flight=1)
    pool = await pool_of(table, clock)
    lease = pool.lease_paid(any_key)
    table.rows[0].label, table.rows[0].secret = "renamed", VAULT.seal(key, "sk_another")
    await pool.refresh()
    assert pool.paid_in_flight() == {key: 1}
    assert refused(pool).reason == "upstream_keys_full"
    pool.release(lease)
    assert pool.paid_in_flight() == {key: 0}
    assert pool.lease_paid(any_key).key.label == "renamed"


async def test_of_two_refreshes_at_once_the_later_one_counts(table: KeyTable, clock: FakeClock) -> None:
    table.add("old")
    pool = await pool_of(table, clock)
    gate = asyncio.Event()
    table.gates.append(gate)
    slow = asyncio.create_task(pool.refresh())
    await asyncio.sleep(0)
    table.rows[0].label = "new"
    later = asyncio.create_task(pool.refresh())
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.gather(slow, later)
    assert [key.label for key in pool.keys] == ["new"]


async def test_news_of_a_key_that_is_gone_disturb_nothing(table: KeyTable, clock: FakeClock) -> None:
    table.add("gone")
    pool = await pool_of(table, clock)
    lease = pool.lease_paid(any_key)
    table.rows.clear()
    await pool.refresh()
    pool.report(lease, Outcome(Verdict.KEY_REFUSED))
    await pool.refresh()
    assert (pool.keys, refused(pool).reason) == ([], "no_upstream_key")
    await pool.close()


def test_a_key_s_secret_is_not_printed() -> None:
    key = UpstreamKey(UUID(int=1), "label", "account", "sk_secret", 1, None, "active")
    assert "sk_secret" not in repr(key)
