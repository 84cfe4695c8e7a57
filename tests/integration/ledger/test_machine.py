"""The ledger against a model of it: random places, ends, quota edits, zones, clock steps and crashes on real Postgres.

The model knows holds and quotas only; what a counter must be is summed from them for the period that the wall in the
team's zone says it is. After every step the database must agree, and must prove itself.

`HYPOTHESIS_PROFILE=long` looks for longer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as wall_time
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from gateway.credits import counters
from gateway.credits.ledger import Conclusion, Ledger, NewTask, Placed
from gateway.credits.quotas import Period
from gateway.errors import GatewayError
from gateway.ids import uuid7
from tests.integration.ledger.book import RELEASED, UNKNOWN, Book, Team, address
from tests.integration.ledger.test_races import change_zone
from tests.servers import create_database, drop_database

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
ZONES = ["UTC", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu"]
# The functions ask `now()`: a function of that name found before Postgres's own moves their clock.
CLOCK = """
CREATE SCHEMA clock;
CREATE TABLE clock.ahead (by interval NOT NULL);
INSERT INTO clock.ahead VALUES ('0');
CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT pg_catalog.now() + by FROM clock.ahead';
"""
_numbers = itertools.count(1)

Scope = tuple[int | None, Period]  # which key's quota, None for the team's
AMOUNTS = st.integers(0, 60)
KEYS = st.integers(0, 1)
SCOPES: st.SearchStrategy[Scope] = st.tuples(
    st.one_of(st.none(), KEYS), st.sampled_from(("day", "week", "month", "total"))
)


@dataclass
class Hold:
    """What the model knows of a hold."""

    id: UUID
    key: int
    quote: int
    placed_at: datetime
    state: str = "held"
    settled: int = 0

    @property
    def is_open(self) -> bool:
        return self.state in {"held", "unknown"}


@dataclass
class Quota:
    limit: int
    enforce: bool


def bounds(period: str, zone: str, at: datetime) -> tuple[datetime, datetime]:
    """Where the period that holds an instant begins and ends; the zones above never change clocks at midnight."""
    where = ZoneInfo(zone)
    today = at.astimezone(where).date()

    def midnight(day: date) -> datetime:
        return datetime.combine(day, wall_time(), where).astimezone(UTC)

    if period == "total":
        return datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
    if period == "day":
        return midnight(today), midnight(today + timedelta(days=1))
    if period == "week":
        monday = today - timedelta(days=today.weekday())
        return midnight(monday), midnight(monday + timedelta(days=7))
    first = today.replace(day=1)
    return midnight(first), midnight((first + timedelta(days=32)).replace(day=1))


class LedgerMachine(RuleBasedStateMachine):
    """One team with two keys, on a database of its own, served by two processes."""

    admin_url = ""
    template = ""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"machine_{os.getpid()}_{next(_numbers)}"
        url = create_database(self.admin_url, self.name, template=self.template)
        with psycopg.connect(address(url), autocommit=True) as connection:
            connection.execute(CLOCK)
            connection.execute(f"ALTER DATABASE {self.name} SET search_path = clock, public, pg_catalog")
        self.runner = asyncio.Runner()
        self.book = Book.open(url)
        self.processes = [self.book.ledger, self.book.process()]
        self.holds: list[Hold] = []
        self.quotas: dict[Scope, Quota] = {}
        self.zone = "UTC"
        self.team: Team = self.book.team(keys=2)
        self.book.sql.execute(
            "INSERT INTO upstream_keys (id, label, account, secret, fingerprint, last4)"
            " VALUES (%s, 'u', 'a', '', '', '')",
            (UUID(int=7),),
        )

    def teardown(self) -> None:
        try:
            for hold in self.holds:
                self.end(hold, RELEASED, 0)
            self.agrees()
            assert not any(held for _, held in self.all_counters())
        finally:
            self.runner.run(self.book.close())
            self.runner.close()
            drop_database(self.admin_url, self.name)

    # The model -------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        found = self.book.rows("SELECT now() AS at")[0]["at"]
        assert isinstance(found, datetime)
        return found

    def counter(self, scope: Scope, at: datetime) -> tuple[int, int]:
        """(settled, held) as the holds have it."""
        key, period = scope
        first, last = bounds(period, self.zone, at)
        counted = [one for one in self.holds if key in (None, one.key) and first <= one.placed_at < last]
        return sum(one.settled for one in counted), sum(one.quote for one in counted if one.is_open)

    def decide(self, key: int, quote: int, at: datetime) -> tuple[bool, bool, int | None]:
        """Whether a call is admitted, whether a shadow quota would not have, and what is left after it."""
        left: list[int] = []
        refused = shadow = False
        for scope, quota in self.quotas.items():
            if scope[0] in (None, key):
                rest = quota.limit - sum(self.counter(scope, at)) - quote
                refused |= rest < 0 and quota.enforce
                shadow |= rest < 0 and not quota.enforce
                left += [rest] if quota.enforce else []
        return not refused, shadow, min(left, default=None)

    def all_counters(self) -> list[tuple[int, int]]:
        return [
            (row["settled"], row["held"]) for row in self.book.rows("SELECT settled, held FROM quota_periods")
        ]

    def items(self, calls: list[tuple[int, int]]) -> list[dict[str, object]]:
        return [
            {"id": str(uuid7()), "team": str(self.team.id), "key": self.team.keys[key], "request": "r",
             "operation": "images", "model": "m", "quote": quote}
            for key, quote in calls
        ]  # fmt: skip

    # What happens ----------------------------------------------------------------------------------------------

    @initialize(zone=st.sampled_from(ZONES), limit=AMOUNTS, period=SCOPES)
    def begin(self, zone: str, limit: int, period: Scope) -> None:
        self.change_zone(zone)
        self.set_quota((None, period[1]), limit, True)

    @rule(calls=st.lists(st.tuples(KEYS, AMOUNTS), min_size=1, max_size=5), process=KEYS)
    def place(self, calls: list[tuple[int, int]], process: int) -> None:
        ledger = self.processes[process]
        found = self.runner.run(_place(ledger, self.team, calls))
        at = self.now()
        for (key, quote), answer in zip(calls, found, strict=True):
            admitted, shadow, left = self.decide(key, quote, at)
            if isinstance(answer, BaseException):
                assert isinstance(answer, GatewayError)
                assert (answer.status, admitted) == (402, False)
                continue
            assert isinstance(answer, Placed)
            assert admitted
            assert (answer.shadow_refused, answer.remaining) == (shadow, left)
            self.holds.append(Hold(answer.id, key, quote, self.book.hold(answer.id)["placed_at"]))

    @precondition(lambda self: self.holds)
    @rule(
        data=st.data(),
        word=st.sampled_from(["settle", "release", "unknown"]),
        cost=st.integers(0, 90),
        process=KEYS,
    )
    def conclude(self, data: st.DataObject, word: str, cost: int, process: int) -> None:
        hold = data.draw(st.sampled_from(self.holds))
        conclusions = {
            "settle": Conclusion(state="settled", settled=cost),
            "release": RELEASED,
            "unknown": UNKNOWN,
        }
        for _ in range(2):  # the second time is a repeat
            self.end(hold, conclusions[word], process)

    @precondition(lambda self: len(self.holds) > 1)
    @rule(data=st.data(), costs=st.lists(st.integers(0, 90), min_size=2, max_size=5))
    def conclude_many(self, data: st.DataObject, costs: list[int]) -> None:
        chosen = [data.draw(st.sampled_from(self.holds)) for _ in costs]
        words = [Conclusion(state="settled", settled=cost) if cost else UNKNOWN for cost in costs]
        found = self.runner.run(_end(self.processes, chosen, words))
        expected = [self.ended(hold, word) for hold, word in zip(chosen, words, strict=True)]
        assert found == expected

    def end(self, hold: Hold, word: Conclusion, process: int) -> None:
        ended = self.runner.run(self.processes[process].end(hold.id, word))
        assert ended.changed == self.ended(hold, word)

    def ended(self, hold: Hold, word: Conclusion) -> bool:
        """Ends a hold of the model; whether that changed it."""
        if not hold.is_open or hold.state == word.state:
            return False
        hold.state, hold.settled = word.state, word.settled or 0
        return True

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def bind(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(self.holds))
        task = NewTask(id=str(hold.id), upstream_key_id=UUID(int=7), status="submitted", body=b"{}")
        self.runner.run(self.book.ledger.bind(hold.id, self.team.order(key=hold.key), task, ()))

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def place_the_same_again(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.holds), min_size=1, max_size=4))
        items = [
            item | {"id": str(hold.id)} for hold in chosen for item in self.items([(hold.key, hold.quote)])
        ]
        self.runner.run(_open(self.book, self.team))
        found = self.book.rows("SELECT outcome FROM gateway_place(%s)", json.dumps(items))
        assert [row["outcome"] for row in found] == ["placed"] * len(items)

    @rule(scope=SCOPES, limit=st.integers(0, 200), enforce=st.booleans())
    def set_quota(self, scope: Scope, limit: int, enforce: bool) -> None:
        owner = self.team.owner(scope[0])
        self.runner.run(self.book.quota(owner, scope[1], limit / 1_000_000, enforce=enforce))
        self.quotas[scope] = Quota(limit, enforce)

    @rule(scope=SCOPES)
    def remove_quota(self, scope: Scope) -> None:
        if scope in self.quotas:
            self.runner.run(self.book.remove(self.team.owner(scope[0]), scope[1]))
            del self.quotas[scope]

    @rule(zone=st.sampled_from(ZONES))
    def change_zone(self, zone: str) -> None:
        if zone != self.zone:
            self.runner.run(change_zone(self.book, self.team, zone))
            self.zone = zone

    @rule(hours=st.sampled_from([1, 5, 12, 24, 24 * 7, 24 * 31]))
    def time_passes(self, hours: int) -> None:
        self.book.sql.execute("UPDATE clock.ahead SET by = by + %s", (timedelta(hours=hours),))

    @rule(calls=st.lists(st.tuples(KEYS, AMOUNTS), min_size=1, max_size=3), data=st.data())
    def crash(self, calls: list[tuple[int, int]], data: st.DataObject) -> None:
        """A process dies in the middle of a transaction."""
        with psycopg.connect(address(self.book.url)) as connection:
            connection.execute("SELECT * FROM gateway_place(%s)", (json.dumps(self.items(calls)),))
            if self.holds:
                hold = data.draw(st.sampled_from(self.holds))
                ends = [{"id": str(hold.id), "state": "settled", "settled": 5, "sent": []}]
                connection.execute("SELECT * FROM gateway_end(%s)", (json.dumps(ends),))
            connection.execute("SELECT gateway_open_counters(%s)", (self.team.id,))
            connection.close()

    # What must be true ------------------------------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        self.book.proven()
        at = self.now()
        for (key, period), quota in self.quotas.items():
            found = self.book.counters(self.team.owner(key))
            if period in found:  # else no call has needed it yet
                assert found[period] == self.counter((key, period), at), (key, period, quota)
        states = {row["id"]: row["state"] for row in self.book.rows("SELECT id, state FROM holds")}
        assert states == {hold.id: hold.state for hold in self.holds}


async def _place(ledger: Ledger, team: Team, calls: list[tuple[int, int]]) -> list[Placed | BaseException]:
    return await asyncio.gather(
        *(ledger.place(team.order(quote, key)) for key, quote in calls), return_exceptions=True
    )


async def _end(processes: list[Ledger], holds: list[Hold], words: list[Conclusion]) -> list[bool]:
    found = await asyncio.gather(
        *(processes[0].end(hold.id, word) for hold, word in zip(holds, words, strict=True))
    )
    return [one.changed for one in found]


async def _open(book: Book, team: Team) -> None:
    async with book.database.transaction() as connection:
        await counters.lock(connection, team.id)
        await counters.open_missing(connection, team.id)


@pytest.mark.timeout(3600 if LONG else 120)
def test_the_ledger_is_its_model(servers: tuple[str, str], migrated_template: str) -> None:
    LedgerMachine.admin_url, LedgerMachine.template = servers[0], migrated_template
    run_machine(
        LedgerMachine,
        settings=settings(
            max_examples=400 if LONG else 12,
            stateful_step_count=50 if LONG else 30,
            derandomize=not LONG,
            phases=tuple(Phase) if LONG else (Phase.generate,),  # shrinking takes minutes
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
