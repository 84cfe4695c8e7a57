"""The ledger against a model of it: calls, polls, aging, edits, rotations, clocks, losses and crashes on real Postgres.

What a counter must be is summed from the model's holds for the period that the wall in the team's zone says it is.
After every step the database must agree, and must prove itself. `HYPOTHESIS_PROFILE=long` looks for longer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from dataclasses import replace
from datetime import timedelta

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from gateway.credits.aging import Ages, Aging
from gateway.credits.ledger import Ledger
from gateway.credits.quotas import PERIODS as PERIOD_NAMES
from gateway.credits.quotas import Owner, Period
from gateway.credits.terms import Conclusion, Order, Placed, bind_item, end_item, place_item
from gateway.errors import GatewayError
from gateway.ids import uuid7
from gateway.tasks.registry import Registry, Seen
from tests.integration.ledger.book import Book, LosesAnswers, Team, address, new_task
from tests.integration.ledger.model import Hold, Model, Quota, Scope
from tests.integration.ledger.test_races import change_zone
from tests.servers import create_database, drop_database

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
ZONES = ["UTC", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu"]
HOUR = 3600.0
AGES = Ages(longest_call=1.5 * HOUR, task_max_age=30.5 * HOUR, settle_unknown_after=50.5 * HOUR)
MOST_KEYS = 4  # of a line
_numbers = itertools.count(1)

Call = tuple[int, int, int]  # which line, which of its keys, quote
LINES = st.integers(0, 1)
AMOUNTS, COSTS = st.integers(0, 60), st.integers(0, 90)
PROCESSES = st.integers(0, 2)
CALLS = st.tuples(LINES, st.integers(0, MOST_KEYS - 1), AMOUNTS)
PERIODS: st.SearchStrategy[Period] = st.sampled_from(PERIOD_NAMES)
SCOPES: st.SearchStrategy[Scope] = st.tuples(st.one_of(st.none(), LINES), PERIODS)
# By an admin: what a task costs is compared with its hold unless somebody has decided otherwise.
WORDS = st.one_of(
    st.sampled_from([Conclusion(state="released", actor="a"), Conclusion(state="unknown", actor="a")]),
    COSTS.map(lambda cost: Conclusion(state="settled", settled=cost, actor="a")),
)
READ = st.one_of(
    st.none(),
    st.just(Conclusion(state="released", reason="the task failed")),
    COSTS.map(lambda cost: Conclusion(state="settled", settled=cost)),
)


class LedgerMachine(RuleBasedStateMachine):
    """One team with two lines of keys, on a database of its own, served by three processes."""

    admin_url = ""
    template = ""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"machine_{os.getpid()}_{next(_numbers)}"
        url = create_database(self.admin_url, self.name, template=self.template)
        self.runner = asyncio.Runner()
        self.book = Book.open(url, movable_clock=True)
        self.losing = LosesAnswers(url)
        self.processes = [self.book.ledger, self.book.process(), self.book.process(self.losing)]
        self.registry = Registry(self.book.database)
        self.model = Model()
        self.team: Team = self.book.team(keys=2)
        self.lines = [[key] for key in self.team.keys]
        self.book.upstream_key()

    def teardown(self) -> None:
        try:
            self.end_all(self.model.holds, [Conclusion(state="released")] * len(self.model.holds))
            self.agrees()
            assert not any(row["held"] for row in self.book.rows("SELECT held FROM quota_periods"))
            assert self.runner.run(self.book.differences()) == ()
        finally:
            self.runner.run(self.book.close())
            self.runner.close()
            drop_database(self.admin_url, self.name)

    def order(self, call: Call) -> Order:
        line, number, quote = call
        return replace(self.team.order(quote), key_id=self.lines[line][number % len(self.lines[line])])

    def loses(self, process: int) -> bool:
        """Whether the process's next answer is lost, so that it sends the same once more."""
        self.losing.lose = int(process == 2)
        return process == 2

    # Calls and what becomes of them -----------------------------------------------------------------------------

    @initialize(zone=st.sampled_from(ZONES), period=PERIODS, calls=st.lists(CALLS, min_size=2, max_size=6))
    def begin(self, zone: str, period: Period, calls: list[Call]) -> None:
        self.change_zone(zone)
        self.lines[0].append(self.runner.run(self.book.rotate(self.lines[0][0])))
        self.set_quota((None, period), 200, True, 0)
        self.set_quota((0, period), 60, False, 0)
        self.place([(0, 0, 30), (0, 1, 20), *calls], 2)
        self.bind_to(self.model.holds[:1], ["a task"], 0)

    @rule(calls=st.lists(CALLS, min_size=1, max_size=5), process=PROCESSES)
    def place(self, calls: list[Call], process: int) -> None:
        orders, is_repeated = [self.order(call) for call in calls], self.loses(process)
        found = self.runner.run(_place(self.processes[process], orders))
        at = self.book.now()
        for (line, _, quote), order, answer in zip(calls, orders, found, strict=True):
            admitted, shadow, left = self.model.decide(line, quote, at)
            if isinstance(answer, BaseException):
                assert isinstance(answer, GatewayError)
                assert (answer.status, admitted) == (402, False)
                continue
            assert isinstance(answer, Placed)
            assert (admitted, answer.shadow_refused) == (True, shadow)
            assert is_repeated or answer.remaining == left
            placed_at = self.book.hold(answer.id)["placed_at"]
            self.model.holds.append(Hold(answer.id, line, order.key_id, quote, placed_at))

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), word=WORDS, process=PROCESSES)
    def conclude(self, data: st.DataObject, word: Conclusion, process: int) -> None:
        hold = data.draw(st.sampled_from(self.model.holds))
        for _ in range(2):  # the second time is a repeat
            is_repeated = self.loses(process)
            ended = self.runner.run(self.processes[process].end(hold.id, word))
            changed = hold.end(word, self.book.now())
            assert ended.changed == (changed and not is_repeated)

    @precondition(lambda self: len(self.model.holds) > 1)
    @rule(data=st.data(), words=st.lists(WORDS, min_size=2, max_size=5))
    def conclude_many(self, data: st.DataObject, words: list[Conclusion]) -> None:
        self.end_all([data.draw(st.sampled_from(self.model.holds)) for _ in words], words)

    def end_all(self, holds: list[Hold], words: list[Conclusion]) -> None:
        found = self.runner.run(_end(self.processes[0], holds, words))
        at = self.book.now()
        assert found == [hold.end(word, at) for hold, word in zip(holds, words, strict=True)]

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), process=PROCESSES)
    def bind(self, data: st.DataObject, process: int) -> None:
        """To a task of its own, or to one that is taken."""
        chosen = data.draw(st.lists(st.sampled_from(self.model.holds), min_size=1, max_size=3, unique=True))
        names = [data.draw(st.sampled_from([str(hold.id), *self.model.tasks])) for hold in chosen]
        self.bind_to(chosen, names, process)

    def bind_to(self, holds: list[Hold], names: list[str], process: int) -> None:
        self.loses(process)
        self.runner.run(_bind(self.processes[process], self.team, holds, names))
        at = self.book.now()
        for hold, name in zip(holds, names, strict=True):
            self.model.bind(hold, name, at)

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data(), word=READ)
    def poll(self, data: st.DataObject, word: Conclusion | None) -> None:
        name = data.draw(st.sampled_from(list(self.model.tasks)))
        cost = None if word is None else word.settled or 0
        seen = Seen(status="x", body=b"{}", next_read=9.0, cost=cost, conclusion=word)
        changed = self.runner.run(_poll(self.registry, self.team, name, seen))
        assert changed == self.model.poll(name, word, self.book.now())

    @precondition(lambda self: any(hold.is_open for hold in self.model.holds))
    @rule(hours=st.sampled_from([0, 2, 31, 51]))
    def age(self, hours: int) -> None:
        self.time_passes(hours)
        found = self.runner.run(Aging(self.book.database, AGES).once())
        assert found == self.model.age(AGES, self.book.now())

    # What goes wrong --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data())
    def place_the_same_again(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.model.holds), min_size=1, max_size=4))
        items = [place_item(one.id, replace(self.team.order(one.quote), key_id=one.key)) for one in chosen]
        self.runner.run(self.book.open_counters(self.team))
        found = self.book.rows("SELECT outcome FROM gateway_place(%s)", json.dumps(items))
        assert [row["outcome"] for row in found] == ["placed"] * len(items)

    @precondition(lambda self: self.model.holds)
    @rule(calls=st.lists(CALLS, min_size=1, max_size=3), data=st.data())
    def crash(self, calls: list[Call], data: st.DataObject) -> None:
        """A process dies in the middle of a transaction."""
        with psycopg.connect(address(self.book.url)) as connection:
            places = [place_item(uuid7(), self.order(call)) for call in calls]
            connection.execute("SELECT * FROM gateway_place(%s)", (json.dumps(places),))
            hold = data.draw(st.sampled_from(self.model.holds))
            binds = [bind_item(hold.id, self.team.order(), new_task("crashed"), ())]
            connection.execute("SELECT * FROM gateway_bind(%s)", (msgspec.json.encode(binds).decode(),))
            ends = [end_item(hold.id, Conclusion(state="settled", settled=5))]
            connection.execute("SELECT * FROM gateway_end(%s)", (json.dumps(ends),))
            connection.execute("SELECT gateway_open_counters(%s)", (self.team.id,))
            connection.close()

    @rule(hours=st.sampled_from([1, 5, 12, 24, 24 * 7, 24 * 31, -1, -12, -24 * 3, -24 * 31]))
    def time_passes(self, hours: int) -> None:
        """Or the clock steps back."""
        self.book.move_clock(timedelta(hours=hours))

    # What admins do ---------------------------------------------------------------------------------------------

    @rule(
        scope=SCOPES, limit=st.integers(0, 200), enforce=st.booleans(), number=st.integers(0, MOST_KEYS - 1)
    )
    def set_quota(self, scope: Scope, limit: int, enforce: bool, number: int) -> None:
        quota = self.book.quota(self.owner(scope, number), scope[1], limit / 1_000_000, enforce=enforce)
        self.runner.run(quota)
        self.model.quotas[scope] = Quota(limit, enforce)

    @precondition(lambda self: self.model.quotas)
    @rule(data=st.data(), number=st.integers(0, MOST_KEYS - 1))
    def remove_quota(self, data: st.DataObject, number: int) -> None:
        scope = data.draw(st.sampled_from(list(self.model.quotas)))
        self.runner.run(self.book.remove(self.owner(scope, number), scope[1]))
        del self.model.quotas[scope]

    @precondition(lambda self: any(len(keys) < MOST_KEYS for keys in self.lines))
    @rule(data=st.data())
    def rotate_key(self, data: st.DataObject) -> None:
        keys = data.draw(st.sampled_from([keys for keys in self.lines if len(keys) < MOST_KEYS]))
        keys.append(self.runner.run(self.book.rotate(keys[-1])))

    @rule(zone=st.sampled_from(ZONES))
    def change_zone(self, zone: str) -> None:
        self.runner.run(change_zone(self.book, self.team, zone))
        self.model.zone = zone

    # What must be true ------------------------------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        self.book.proven()
        at = self.book.now()
        owners = {None: self.team.owner(), 0: self.owner((0, "day"), 0), 1: self.owner((1, "day"), 9)}
        found = {line: self.book.counters(owner) for line, owner in owners.items()}
        for scope in self.model.quotas:
            line, period = scope
            if period in found[line]:  # else no call has needed it yet
                assert found[line][period] == self.model.counter(scope, at), scope
        states = {row["id"]: row["state"] for row in self.book.rows("SELECT id, state FROM holds")}
        assert states == {hold.id: hold.state for hold in self.model.holds}
        tasks = {row["id"]: row["hold_id"] for row in self.book.rows("SELECT id, hold_id FROM tasks")}
        assert tasks == {name: task.hold.id for name, task in self.model.tasks.items()}

    def owner(self, scope: Scope, number: int) -> Owner:
        """Whose quota it is, by one of the keys that share it."""
        line = scope[0]
        return Owner(self.team.id, None if line is None else self.lines[line][number % len(self.lines[line])])


async def _place(ledger: Ledger, orders: list[Order]) -> list[Placed | BaseException]:
    return await asyncio.gather(*(ledger.place(order) for order in orders), return_exceptions=True)


async def _bind(ledger: Ledger, team: Team, holds: list[Hold], names: list[str]) -> None:
    binds = [
        ledger.bind(hold.id, team.order(), new_task(name), ())
        for hold, name in zip(holds, names, strict=True)
    ]
    await asyncio.gather(*binds)


async def _end(ledger: Ledger, holds: list[Hold], words: list[Conclusion]) -> list[bool]:
    ends = [ledger.end(hold.id, word) for hold, word in zip(holds, words, strict=True)]
    return [one.changed for one in await asyncio.gather(*ends)]


async def _poll(registry: Registry, team: Team, name: str, seen: Seen) -> bool:
    record = await registry.find(team.id, name)
    assert record is not None
    return (await registry.store(record, seen)).changed


@pytest.mark.timeout(3600 if LONG else 120)
def test_the_ledger_is_its_model(servers: tuple[str, str], migrated_template: str) -> None:
    LedgerMachine.admin_url, LedgerMachine.template = servers[0], migrated_template
    run_machine(
        LedgerMachine,
        settings=settings(
            max_examples=400 if LONG else 12,
            stateful_step_count=50 if LONG else 26,
            derandomize=not LONG,
            phases=tuple(Phase) if LONG else (Phase.generate,),  # shrinking takes minutes
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
