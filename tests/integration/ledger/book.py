"""A team's money for tests: teams, keys and quotas, ledgers on engines of their own, and the proof that it adds up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import make_url

from gateway.credits import quotas
from gateway.credits.ledger import Conclusion, Ended, Ledger, Order, Placed
from gateway.credits.quotas import Limit, Owner, Period, Quota
from gateway.db.engine import Database
from gateway.errors import GatewayError
from gateway.ids import uuid7

CREDIT = 1_000_000
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Team:
    id: UUID
    keys: tuple[str, ...]

    def order(self, quote: int = CREDIT, key: int = 0, **fields: str) -> Order:
        """What a hold of the team is placed for."""
        named = {"request_id": "r", "operation": "images", "model": "m"} | fields
        return Order(team_id=self.id, key_id=self.keys[key], quote=quote, **named)

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
    def open(cls, url: str) -> Book:
        sql = psycopg.connect(address(url), autocommit=True, row_factory=dict_row)
        database = Database(url)
        ledger = Ledger(database)
        return cls(url, sql, database, ledger, [database], [ledger])

    def process(self, **limits: float) -> Ledger:
        """One more ledger on an engine of its own, as another process has one."""
        database = Database(self.url, **limits)  # type: ignore[arg-type]
        self.databases.append(database)
        self.ledgers.append(Ledger(database))
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

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        return self.sql.execute(query, values).fetchall()

    def counters(self, owner: Owner) -> dict[str, tuple[int, int]]:
        """(settled, held) of the running counters of one owner by period."""
        found = self.rows(
            """
            SELECT q.period, c.settled, c.held FROM quotas q JOIN quota_periods c ON c.quota_id = q.id
            WHERE q.team_id = %s AND q.key_id IS NOT DISTINCT FROM %s
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


def address(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def settled(cost: float, **fields: Any) -> Conclusion:
    return Conclusion(state="settled", settled=int(cost * CREDIT), **fields)


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


PROOFS = {
    "entries are what counters say": """
        SELECT p.id, p.held, p.settled, e.held AS entered_held, e.settled AS entered_settled FROM quota_periods p
        FULL JOIN (SELECT c, sum(held) AS held, sum(settled) AS settled
                   FROM ledger_entries, unnest(counters) c GROUP BY c) e ON e.c = p.id
        WHERE coalesce(p.held, 0) <> coalesce(e.held, 0) OR coalesce(p.settled, 0) <> coalesce(e.settled, 0)
    """,
    "what counters hold is open": """
        SELECT p.id, p.held, o.held AS open FROM quota_periods p
        LEFT JOIN (SELECT c, sum(quote) AS held FROM holds, unnest(counters) c
                   WHERE state IN ('held', 'unknown') GROUP BY c) o ON o.c = p.id
        WHERE p.held <> coalesce(o.held, 0) OR p.held < 0 OR p.settled < 0
    """,
    "counters have all that was spent and is held in their period": """
        SELECT p.id, q.period, p.settled, p.held, real.settled AS really_settled, real.held AS really_held
        FROM quota_periods p JOIN quotas q ON q.id = p.quota_id
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(h.settled) FILTER (WHERE h.state = 'settled'), 0) AS settled,
                   coalesce(sum(h.quote) FILTER (WHERE h.state IN ('held', 'unknown')), 0) AS held
            FROM holds h
            WHERE h.team_id = q.team_id AND (q.key_id IS NULL OR h.key_id = q.key_id)
              AND h.placed_at >= p.starts_at AND (p.ends_at IS NULL OR h.placed_at < p.ends_at)
        ) real
        WHERE p.settled <> real.settled OR p.held <> real.held
    """,
    "a hold has one place and one end": """
        SELECT h.id, h.state, e.kinds FROM holds h
        LEFT JOIN (SELECT hold_id, array_agg(kind ORDER BY kind) AS kinds FROM ledger_entries GROUP BY hold_id) e
          ON e.hold_id = h.id
        WHERE e.kinds IS DISTINCT FROM CASE
            WHEN h.state IN ('held', 'unknown') THEN ARRAY['place']
            WHEN h.state = 'released' THEN ARRAY['place', 'release']
            WHEN h.settled > h.quote THEN ARRAY['overrun', 'place', 'settle']
            ELSE ARRAY['place', 'settle'] END
           OR (h.state = 'settled') <> (h.settled IS NOT NULL)
           OR (h.state IN ('settled', 'released')) <> (h.ended_at IS NOT NULL)
    """,
    "usage is what holds say, by the quarter of an hour they were placed in": """
        WITH expected AS (
            SELECT date_bin('15 minutes', placed_at, '2000-01-01Z') AS starts_at, team_id, key_id, model, operation,
                   count(*)::integer AS requests,
                   count(*) FILTER (WHERE state IN ('released', 'unknown'))::integer AS failed,
                   count(*) FILTER (WHERE 'shadow_refused' = ANY (flags))::integer AS shadow_refused,
                   coalesce(sum(settled), 0)::bigint AS credits,
                   coalesce(sum(settled) FILTER (WHERE estimated), 0)::bigint AS estimated_credits
            FROM holds GROUP BY 1, 2, 3, 4, 5
        ), found AS (
            SELECT starts_at, team_id, key_id, model, operation, requests, failed, shadow_refused, credits,
                   estimated_credits FROM usage_buckets
        )
        (SELECT 'expected', e.* FROM expected e EXCEPT ALL SELECT 'expected', f.* FROM found f)
        UNION ALL
        (SELECT 'found', f.* FROM found f EXCEPT ALL SELECT 'found', e.* FROM expected e)
    """,
}
