"""A team's money for tests: teams, keys and quotas, ledgers on engines of their own, and the proof that it adds up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import make_url

from gateway import errors
from gateway.access import team_keys
from gateway.access.key_format import Peppers
from gateway.credits import counters, quotas
from gateway.credits.ledger import Ledger
from gateway.credits.quotas import Limit, Owner, Period, Quota
from gateway.credits.terms import Conclusion, Ended, NewTask, Order, Placed
from gateway.credits.verify import Difference, verify
from gateway.db.engine import Database
from gateway.errors import GatewayError
from gateway.ids import uuid7
from tests.integration.ledger.proofs import PROOFS

CREDIT = 1_000_000
PEPPERS = Peppers(["pepper-of-the-ledger-tests-0123456789"])
UPSTREAM_KEY = UUID(int=7)
# The functions ask `now()`: a function of that name found before Postgres's own moves their clock.
CLOCK = """
CREATE SCHEMA clock;
CREATE TABLE clock.ahead (by interval NOT NULL);
INSERT INTO clock.ahead VALUES ('0');
CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT pg_catalog.now() + by FROM clock.ahead';
SET search_path = clock, public, pg_catalog;
ALTER TABLE tasks ALTER COLUMN created_at SET DEFAULT now();
"""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Team:
    id: UUID
    keys: tuple[str, ...]

    def order(self, quote: int = CREDIT, key: int = 0, **fields: Any) -> Order:
        """What a hold of the team is placed for."""
        named: dict[str, Any] = {"request_id": "r", "operation": "images", "model": "m"} | fields
        return Order(team_id=self.id, key_id=self.keys[key], quote=quote, **named)

    def joined(self, key: str) -> Team:
        """The team with one more key."""
        return replace(self, keys=(*self.keys, key))

    def owner(self, key: int | None = None) -> Owner:
        return Owner(self.id, None if key is None else self.keys[key])


@dataclass
class Book:
    """One migrated database."""

    url: str
    sql: psycopg.Connection[dict[str, Any]]
    database: Database
    ledger: Ledger
    databases: list[Database] = field(default_factory=list)
    ledgers: list[Ledger] = field(default_factory=list)

    @classmethod
    def open(cls, url: str, *, movable_clock: bool = False) -> Book:
        if movable_clock:
            with psycopg.connect(address(url), autocommit=True) as connection:
                connection.execute(CLOCK)
                name = make_url(url).database
                connection.execute(f"ALTER DATABASE {name} SET search_path = clock, public, pg_catalog")
        sql = psycopg.connect(address(url), autocommit=True, row_factory=dict_row)
        database = Database(url)
        ledger = Ledger(database)
        return cls(url, sql, database, ledger, [database], [ledger])

    def process(self, database: Database | None = None, **limits: float) -> Ledger:
        """One more ledger on an engine of its own, as another process has one."""
        self.databases.append(database or Database(self.url, **limits))  # type: ignore[arg-type]
        self.ledgers.append(Ledger(self.databases[-1]))
        return self.ledgers[-1]

    async def close(self) -> None:
        await asyncio.gather(*(ledger.close() for ledger in self.ledgers))
        for database in self.databases:
            await database.close()
        self.sql.close()

    def team(self, zone: str = "UTC", keys: int = 1) -> Team:
        """A team that may be without an enforced quota."""
        number = next(_numbers)
        team = Team(uuid7(), tuple(f"k{number:05d}{key:04d}" for key in range(keys)))
        self.sql.execute(
            "INSERT INTO teams (id, slug, name, time_zone, unlimited) VALUES (%s, %s, 'Team', %s, true)",
            (team.id, f"team-{number}", zone),
        )
        for key in team.keys:
            self.sql.execute(
                "INSERT INTO team_keys (id, team_id, name, digest, last4) VALUES (%s, %s, 'key', %s, 'last')",
                (key, team.id, key.encode()),
            )
        return team

    async def rotate(self, key: str) -> str:
        """The key that replaces this one; both work for an hour."""
        async with self.database.transaction() as connection:
            overlap = (datetime.now(UTC), 3600)
            _, issued = await team_keys.rotate(connection, "admin", PEPPERS, key, overlap)
        return issued.key.id

    def upstream_key(self) -> None:
        """The one that tasks are bound to."""
        self.sql.execute(
            "INSERT INTO upstream_keys (id, label, account, secret, fingerprint, last4)"
            " VALUES (%s, 'u', 'a', '', '', '')",
            (UPSTREAM_KEY,),
        )

    def bare_quota(self, owner: Owner, period: Period, limit: float, *, enforce: bool = True) -> None:
        """A quota without a counter: the next call is the first that needs one."""
        self.sql.execute(
            "INSERT INTO quotas (id, team_id, key_id, period, limit_micro, enforce) VALUES (%s, %s, %s, %s, %s, %s)",
            (uuid7(), owner.team_id, owner.key_id, period, int(limit * CREDIT), enforce),
        )

    async def quota(self, owner: Owner, period: Period, limit: float, *, enforce: bool = True) -> Quota:
        """A quota made or changed as an admin does."""
        async with self.database.transaction() as connection:
            allowed = Limit(int(limit * CREDIT), enforce)
            return await quotas.put(connection, "admin", owner, period, allowed)

    async def remove(self, owner: Owner, period: Period) -> None:
        async with self.database.transaction() as connection:
            await quotas.remove(connection, "admin", owner, period)

    async def open_counters(self, team: Team) -> None:
        """Those the team's quotas lack now."""
        async with self.database.transaction() as connection:
            await counters.lock(connection, team.id)
            await counters.open_missing(connection, team.id)

    async def differences(self) -> tuple[Difference, ...]:
        """What the gateway's own proof finds."""
        async with self.database.transaction() as connection:
            return (await verify(connection)).differences

    def now(self) -> datetime:
        found = self.rows("SELECT now() AS at")[0]["at"]
        assert isinstance(found, datetime)
        return found

    def move_clock(self, by: timedelta) -> None:
        """The database's clock, where it is movable: forward, or back."""
        self.sql.execute("UPDATE clock.ahead SET by = by + %s", (by,))

    def set_clock(self, at: datetime) -> None:
        self.sql.execute("UPDATE clock.ahead SET by = %s - pg_catalog.now()", (at,))

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        return self.sql.execute(query, values).fetchall()

    def counters(self, owner: Owner) -> dict[str, tuple[int, int]]:
        """(settled, held) of the running counters of one owner by period."""
        found = self.rows(
            """
            SELECT q.period, c.settled, c.held FROM quotas q JOIN quota_periods c ON c.quota_id = q.id
            WHERE q.team_id = %s
              AND q.key_id IS NOT DISTINCT FROM (SELECT k.quota_key_id FROM team_keys k WHERE k.id = %s)
              AND c.starts_at <= now() AND (c.ends_at IS NULL OR c.ends_at > now())
            """,
            owner.team_id,
            owner.key_id,
        )
        return {row["period"]: (row["settled"], row["held"]) for row in found}

    def hold(self, hold_id: UUID) -> dict[str, Any]:
        return self.rows("SELECT * FROM holds WHERE id = %s", hold_id)[0]

    def entries(self, hold_id: UUID) -> dict[str, tuple[int, int]]:
        """(held, settled) of a hold's entries by kind."""
        found = self.rows("SELECT kind, held, settled FROM ledger_entries WHERE hold_id = %s", hold_id)
        return {row["kind"]: (row["held"], row["settled"]) for row in found}

    def usage(self, team: Team) -> dict[str, int]:
        """The team's sums of requests, failed, shadow_refused, credits and estimated_credits."""
        names = ("requests", "failed", "shadow_refused", "credits", "estimated_credits")
        sums = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in names)
        return self.rows(f"SELECT {sums} FROM usage_buckets WHERE team_id = %s", team.id)[0]

    def proven(self) -> None:
        """Fails unless entries, counters, holds and usage are one, recomputed from scratch in one snapshot."""
        for name, query in PROOFS.items():
            assert self.rows(query) == [], name


class LosesAnswers(Database):
    """A database whose answers can be lost after it has done what was asked."""

    lose = 0

    async def call(self, function: str, *arguments: object) -> list[Any]:
        rows = await super().call(function, *arguments)
        if self.lose > 0:
            self.lose -= 1
            raise errors.dependency_unavailable("The answer was lost.")
        return rows

    def autocommit(self) -> Any:
        return self._losing(super().autocommit())

    def _losing(self, context: Any) -> Any:
        database = self

        class Losing:
            async def __aenter__(self) -> Any:
                return await context.__aenter__()

            async def __aexit__(self, *error: Any) -> Any:
                done = await context.__aexit__(*error)
                if database.lose > 0 and error[0] is None:
                    database.lose -= 1
                    raise errors.dependency_unavailable("The answer was lost.")
                return done

        return Losing()


def address(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def settled(cost: float, **fields: Any) -> Conclusion:
    return Conclusion(state="settled", settled=int(cost * CREDIT), **fields)


def new_task(name: str, **fields: Any) -> NewTask:
    whole = NewTask(id=name, upstream_key_id=UPSTREAM_KEY, status="submitted", body=b'{"id": "\xff"}')
    return replace(whole, **fields)


RELEASED = Conclusion(state="released", reason="test")
UNKNOWN = Conclusion(state="unknown", reason="test")


async def try_place(ledger: Ledger, order: Order) -> Placed | None:
    """The hold, or None when a quota refuses; any other failure is raised."""
    try:
        return await ledger.place(order)
    except GatewayError as error:
        if error.status != 402:
            raise
        return None


async def place_all(ledgers: Sequence[Ledger], orders: Iterable[Order]) -> list[Placed]:
    """Places all at once, spread over the ledgers: those that were admitted."""
    found = await asyncio.gather(
        *(try_place(ledgers[number % len(ledgers)], order) for number, order in enumerate(orders))
    )
    return [placed for placed in found if placed is not None]


async def end_all(ledger: Ledger, holds: Iterable[Placed], conclusion: Conclusion) -> list[Ended]:
    return await asyncio.gather(*(ledger.end(placed.id, conclusion) for placed in holds))
