"""The proof finds exactly what is wrong, and the repair mends what is derived."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from gateway.credits import quotas
from gateway.credits.quotas import Owner
from gateway.credits.terms import Conclusion
from gateway.credits.verify import repair, repairable, verify
from gateway.errors import GatewayError
from tests.integration.credits.conftest import Books


async def _some_of_everything(books: Books) -> dict[str, UUID | str]:
    """A team with quotas of its own and of its key, and a hold in each state."""
    team = await books.team()
    key = await books.key(team)
    quota = await books.quota(Owner(team), 1000)
    await books.quota(Owner(team, key), 500, "day")
    await books.quota(Owner(team), 1, "week", enforce=False)
    found: dict[str, UUID | str] = {"team": team, "key": key, "quota": quota}
    for state in ("held", "unknown", "released", "settled", "overrun", "estimated", "task"):
        found[state] = await books.place(team, key, 8)
    await books.end(UUID(str(found["unknown"])), Conclusion(state="unknown", reason="timeout"))
    await books.end(UUID(str(found["released"])), Conclusion(state="released", reason="refused"))
    await books.settle(UUID(str(found["settled"])), 7)
    await books.settle(UUID(str(found["overrun"])), 11, flags=("overrun",))
    await books.settle(UUID(str(found["estimated"])), 8, estimated=True)
    found["task_id"] = await books.task(UUID(str(found["task"])), team, key, 5)
    await books.settle(UUID(str(found["task"])), 5)
    return found


async def test_an_honest_ledger_is_ok(books: Books) -> None:
    await _some_of_everything(books)
    proof = await books.proof()
    assert proof.differences == ()
    assert proof.ok
    checked = proof.checked
    assert (checked.holds, checked.entries, checked.counters, checked.tasks) == (7, 13, 3, 1)
    assert checked.buckets >= 1


PLANTED = {
    "counter settled": (
        "counter",
        "UPDATE quota_periods SET settled = settled + 1 WHERE quota_id = :quota",
    ),
    "counter held": ("counter", "UPDATE quota_periods SET held = held - 1 WHERE quota_id = :quota"),
    "counter gone": ("counter", "DELETE FROM quota_periods WHERE quota_id = :quota"),
    "an entry too many": (
        "hold",
        (
            "INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled) SELECT"
            " id, 'release', team_id, key_id, counters, -quote, 0 FROM holds WHERE id = :settled"
        ),
    ),
    "an end without its hold": (
        "hold",
        (
            "INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled) SELECT"
            " id, 'settle', team_id, key_id, counters, -quote, 3 FROM holds WHERE id = :held"
        ),
    ),
    "an adjustment that moved nothing": (
        "counter",
        (
            "INSERT INTO ledger_entries (hold_id, kind, team_id, counters, held, settled) SELECT"
            " gateway_uuid7(), 'adjust', :team, ARRAY[id], 0, 5 FROM quota_periods WHERE quota_id = :quota"
        ),
    ),
    "entries without a hold": (
        "entries",
        (
            "INSERT INTO ledger_entries (hold_id, kind, team_id, counters, held, settled) SELECT"
            " gateway_uuid7(), 'place', :team, ARRAY[id], 5, 0 FROM quota_periods WHERE quota_id = :quota"
        ),
    ),
    "usage credits": ("usage", "UPDATE usage_buckets SET credits = credits + 1"),
    "usage requests": ("usage", "UPDATE usage_buckets SET requests = requests - 1"),
    "usage failed": ("usage", "UPDATE usage_buckets SET failed = failed + 1"),
    "usage estimated": ("usage", "UPDATE usage_buckets SET estimated_credits = 0"),
    "usage shadow": ("usage", "UPDATE usage_buckets SET shadow_refused = shadow_refused + 1"),
    "usage gone": ("usage", "DELETE FROM usage_buckets"),
    "usage of nobody": (
        "usage",
        (
            "INSERT INTO usage_buckets (starts_at, team_id, key_id, model, operation, day, requests)"
            " VALUES (date_bin('15 minutes', now(), '2000-01-01Z'), :team, 'x', 'y', 'z', current_date, 1)"
        ),
    ),
    "held made settled": (
        "hold",
        "UPDATE holds SET state = 'settled', settled = quote, ended_at = now() WHERE id = :held",
    ),
    "unknown made released": (
        "hold",
        "UPDATE holds SET state = 'released', ended_at = now() WHERE id = :unknown",
    ),
    "settled made held": (
        "hold",
        "UPDATE holds SET state = 'held', settled = NULL, ended_at = NULL WHERE id = :settled",
    ),
    "settled made released": (
        "hold",
        "UPDATE holds SET state = 'released', settled = NULL WHERE id = :estimated",
    ),
    "released made unknown": (
        "hold",
        "UPDATE holds SET state = 'unknown', ended_at = NULL WHERE id = :released",
    ),
    "a hold's amount": ("hold", "UPDATE holds SET settled = settled + 1 WHERE id = :overrun"),
    "a hold's quote": ("hold", "UPDATE holds SET quote = quote + 1 WHERE id = :held"),
    "a hold's end": ("hold", "UPDATE holds SET ended_at = NULL WHERE id = :settled"),
    "a hold's counters": ("hold", "UPDATE holds SET counters = '{}' WHERE id = :settled"),
    "unknown made held": ("usage", "UPDATE holds SET state = 'held' WHERE id = :unknown"),
    "task cost": ("task", "UPDATE tasks SET credits_cost = credits_cost + 1"),
}


@pytest.mark.parametrize("fault", PLANTED)
async def test_a_planted_fault_is_found_and_nothing_else(books: Books, fault: str) -> None:
    values = await _some_of_everything(books)
    kind, statement = PLANTED[fault]
    if "usage" in kind:
        await _into_one_bucket(books)
    await books.execute(statement, **{name: values[name] for name in values if f":{name}" in statement})
    [found] = (await books.proof()).differences
    assert found.kind == kind, found
    assert found.expected != found.found
    assert found.team_id == values["team"]


async def _into_one_bucket(books: Books) -> None:
    """Should a quarter of an hour have begun between two holds, they all move into the first."""
    await books.execute("UPDATE holds SET placed_at = (SELECT min(placed_at) FROM holds)")
    for team_id in repairable((await books.proof()).differences):
        async with books.database.transaction() as connection:
            await repair(connection, "test", team_id)


async def test_an_open_hold_off_its_counter_is_found_at_the_counter(books: Books) -> None:
    values = await _some_of_everything(books)
    await books.execute("UPDATE holds SET counters = counters[2:] WHERE id = :held", held=values["held"])
    [found] = (await books.proof()).differences
    assert found.kind == "counter"
    assert "open holds of 8" in found.found


async def test_several_faults_are_several_differences(books: Books) -> None:
    values = await _some_of_everything(books)
    await books.execute(
        "UPDATE quota_periods SET settled = settled + 1 WHERE quota_id = :q", q=values["quota"]
    )
    await books.execute("UPDATE holds SET settled = 6000000 WHERE id = :hold", hold=values["settled"])
    await books.execute("UPDATE tasks SET credits_cost = credits_cost + 1")
    proof = await books.proof()
    assert sorted(one.kind for one in proof.differences) == ["counter", "hold", "task"]
    assert not proof.ok
    by_kind = {one.kind: one for one in proof.differences}
    assert by_kind["hold"].subject == str(values["settled"])
    assert "settle held -8 settled 6," in by_kind["hold"].expected
    assert "settle held -8 settled 7" in by_kind["hold"].found
    assert by_kind["counter"].expected == "settled 31, held 16"
    assert by_kind["counter"].found == "settled 31.000001, held 16"
    assert by_kind["task"].subject == values["task_id"]


async def test_a_task_that_cost_something_else_after_an_admin_s_word_is_no_difference(books: Books) -> None:
    team = await books.team()
    key = await books.key(team)
    hold = await books.place(team, key, 8)
    await books.task(hold, team, key, 3)
    assert [one.kind for one in (await books.proof()).differences] == ["task"], "its hold is still open"
    await books.settle(hold, 8, actor="admin-token:x", reason="the invoice says so")
    assert (await books.proof()).ok


DERIVED = [name for name, (kind, _) in PLANTED.items() if kind in ("counter", "usage")]


@pytest.mark.parametrize("fault", [name for name in DERIVED if "adjustment" not in name])
async def test_a_repair_rebuilds_what_is_derived(books: Books, fault: str) -> None:
    values = await _some_of_everything(books)
    before = await books.counter(UUID(str(values["quota"])))
    _, statement = PLANTED[fault]
    await books.execute(statement, **{name: values[name] for name in values if f":{name}" in statement})
    proof = await books.proof()
    [team_id] = repairable(proof.differences)
    async with books.database.transaction() as connection:
        repaired = await repair(connection, "cli:someone", team_id)
    assert repaired.counters + repaired.buckets >= 1
    assert (await books.proof()).differences == ()
    assert await books.counter(UUID(str(values["quota"]))) == before
    [entry] = await books.execute("SELECT * FROM audit_entries WHERE action = 'ledger.repair'")
    assert (entry.actor, entry.team_id) == ("cli:someone", team_id)
    # and the money goes on from there
    await books.settle(UUID(str(values["held"])), 8)
    await books.end(UUID(str(values["unknown"])), Conclusion(state="released"))
    assert (await books.proof()).ok


async def test_a_repair_with_nothing_to_do_changes_nothing(books: Books) -> None:
    values = await _some_of_everything(books)
    async with books.database.transaction() as connection:
        repaired = await repair(connection, "test", UUID(str(values["team"])))
    assert (repaired.counters, repaired.buckets) == (0, 0)
    assert await books.execute("SELECT 1 FROM audit_entries WHERE action = 'ledger.repair'") == []


async def test_a_removed_quota_leaves_nothing_behind(books: Books) -> None:
    values = await _some_of_everything(books)
    team = UUID(str(values["team"]))
    async with books.database.transaction() as connection:
        await quotas.remove(connection, "test", Owner(team), "month")
    assert (await books.proof()).ok
    await books.settle(UUID(str(values["held"])), 8)
    await books.quota(Owner(team), 1000)
    assert (await books.proof()).ok
    [row] = await books.execute(
        "SELECT c.settled, c.held FROM quota_periods c JOIN quotas q ON q.id = c.quota_id WHERE q.period = 'month'"
    )
    assert (row.settled, row.held) == (39_000_000, 8_000_000)


async def test_repair_and_proof_while_calls_go_on(books: Books) -> None:
    team = await books.team()
    key = await books.key(team)
    await books.quota(Owner(team), 10_000)
    stop = asyncio.Event()

    async def call() -> int:
        made = 0
        while not stop.is_set():
            hold = await books.place(team, key, 3)
            if made % 3 == 2:
                await books.end(hold, Conclusion(state="unknown"))
            await books.settle(hold, 2)
            made += 1
        return made

    await books.settle(await books.place(team, key, 3), 2)
    callers = [asyncio.create_task(call()) for _ in range(6)]
    for _ in range(5):
        await books.execute("UPDATE quota_periods SET settled = settled + 7, held = held + 1")
        await books.execute("UPDATE usage_buckets SET credits = credits + 1")
        assert {one.kind for one in (await books.proof()).differences} == {"counter", "usage"}
        async with books.database.transaction() as connection:
            await repair(connection, "test", team)
        assert (await books.proof()).ok
    stop.set()
    assert sum(await asyncio.gather(*callers)) > 0
    assert (await books.proof()).ok


async def test_one_proof_runs_at_a_time(books: Books) -> None:
    async with books.database.transaction() as connection:
        await verify(connection)
        with pytest.raises(GatewayError) as caught:
            await books.proof()
        error = caught.value
        assert (error.status, error.reason, error.message) == (
            409,
            "proof_running",
            "A proof is running; ask again.",
        )
        assert (error.retry, error.headers["retry-after"]) == (True, "5")
    assert (await books.proof()).ok


async def test_the_proof_of_a_repair_waits_for_its_turn(books: Books) -> None:
    async def in_turn() -> bool:
        async with books.database.transaction() as connection:
            return (await verify(connection, in_turn=True)).ok

    async with books.database.transaction() as connection:
        await verify(connection)
        waiting = asyncio.create_task(in_turn())
        await asyncio.sleep(0.2)
        assert not waiting.done()
    assert await waiting
