"""The ledger alone: holds placed and settled a second, in groups and one function a commit, in the same run.

A pair is one hold placed and settled. The ways take turns inside every round, so that what else the machine does
hits all of them; the table shows medians. `cpu` is microseconds a pair, of this process and of Postgres.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psutil
import psycopg
from sqlalchemy import make_url

from gateway.cli.embedded import EmbeddedServers
from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion, Order
from gateway.db import migrate
from gateway.db.engine import Database
from gateway.ids import uuid7

CREDIT = 1_000_000
LIMIT = 10**15
TEAMS = 50
GROUPED = "in groups"
SINGLE = (1, 4, 8)


Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Team:
    """A team with a monthly quota, and one key of it with one too."""

    id: UUID
    key: str


@dataclass
class Turn:
    """What one way did in one turn."""

    pairs: int = 0
    seconds: float = 0.0
    own_cpu: float = 0.0
    postgres_cpu: float = 0.0
    holds: list[float] = field(default_factory=list)  # milliseconds


Found = dict[tuple[str, str], list[Turn]]


class Meter:
    """CPU seconds of this process and of the Postgres behind a connection (0 when it is on another machine)."""

    def __init__(self, connection: psycopg.Connection[tuple[int]]) -> None:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        self._server: psutil.Process | None = None
        if row is not None and psutil.pid_exists(row[0]):
            self._server = psutil.Process(row[0]).parent()

    def read(self) -> tuple[float, float]:
        own = time.process_time()
        if self._server is None:
            return own, 0.0
        spent = self._server.cpu_times()
        total = (
            spent.user + spent.system + spent.children_user + spent.children_system
        )  # backends that have ended
        for backend in self._server.children():
            times = backend.cpu_times()
            total += times.user + times.system
        return own, total


class Rig:
    """A migrated database with fifty teams."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self.connection: psycopg.Connection[tuple[int]] = psycopg.connect(self.address, autocommit=True)
        self.meter = Meter(self.connection)
        self.teams = [self._team(number) for number in range(TEAMS)]

    def _team(self, number: int) -> Team:
        team = Team(uuid7(), f"key{number:07d}")
        run = self.connection.execute
        run(
            "INSERT INTO teams (id, slug, name) VALUES (%s, %s, %s)",
            (team.id, f"team-{number}", f"Team {number}"),
        )
        run(
            "INSERT INTO team_keys (id, team_id, name, digest, last4) VALUES (%s, %s, 'bench', %s, 'last')",
            (team.key, team.id, team.key.encode()),
        )
        for key in (None, team.key):
            run(
                "INSERT INTO quotas (id, team_id, key_id, period, limit_micro) VALUES (%s, %s, %s, 'month', %s)",
                (uuid7(), team.id, key, LIMIT),
            )
        run("SELECT gateway_open_counters(%s)", (team.id,))
        return team

    def check(self) -> None:
        """Every counter is what the entries say, and nothing is held any more."""
        row = self.connection.execute(
            """
            SELECT count(*) FROM quota_periods p
            LEFT JOIN (SELECT c, sum(held) AS held, sum(settled) AS settled
                       FROM ledger_entries, unnest(counters) c GROUP BY c) e ON e.c = p.id
            WHERE p.held <> 0 OR p.settled <> coalesce(e.settled, 0) OR coalesce(e.held, 0) <> 0
            """
        ).fetchone()
        if row is None or row[0]:
            raise SystemExit(f"{row[0] if row else '?'} counters are not what the ledger says")


Teams = Sequence[Team]


class Grouped:
    """The product's way: callers at once on one Ledger."""

    name = GROUPED

    def __init__(self, rig: Rig, callers: int) -> None:
        self._database = Database(rig.url)
        self._ledger = Ledger(self._database)
        self._callers = callers

    async def run(self, turn: Turn, teams: Teams, until: float) -> None:
        await asyncio.gather(
            *(self._caller(turn, teams[number % len(teams)], until) for number in range(self._callers))
        )

    async def _caller(self, turn: Turn, team: Team, until: float) -> None:
        order = Order(
            team_id=team.id, key_id=team.key, request_id="r", operation="images", model="m", quote=CREDIT
        )
        while time.perf_counter() < until:
            began = time.perf_counter()
            placed = await self._ledger.place(order)
            turn.holds.append((time.perf_counter() - began) * 1000)
            await self._ledger.end(placed.id, Conclusion(state="settled", settled=CREDIT))
            turn.pairs += 1

    async def close(self) -> None:
        await self._ledger.close()
        await self._database.close()


class OneByOne:
    """The same functions with one item each, every one its own commit, on so many connections."""

    def __init__(self, rig: Rig, connections: int) -> None:
        self.name = f"one a commit, {connections} connections"
        self._address = rig.address
        self._count = connections
        self._connections: list[Connection] = []

    async def run(self, turn: Turn, teams: Teams, until: float) -> None:
        while len(self._connections) < self._count:
            self._connections.append(
                await psycopg.AsyncConnection.connect(self._address, autocommit=True, prepare_threshold=1)
            )
        await asyncio.gather(*(self._caller(one, turn, teams, until) for one in self._connections))

    async def _caller(self, connection: Connection, turn: Turn, teams: Teams, until: float) -> None:
        while time.perf_counter() < until:
            team = teams[turn.pairs % len(teams)]
            hold = {"id": str(uuid7()), "team": str(team.id), "key": team.key, "request": "r"}
            hold |= {"operation": "images", "model": "m"}
            end = {"id": hold["id"], "state": "settled", "settled": CREDIT, "flags": [], "sent": []}
            began = time.perf_counter()
            await _ask(connection, "SELECT * FROM gateway_place_calls(%s, NULL)", hold | {"quote": CREDIT})
            turn.holds.append((time.perf_counter() - began) * 1000)
            await _ask(connection, "SELECT * FROM gateway_end(%s, NULL)", end)
            turn.pairs += 1

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()


async def _ask(connection: Connection, statement: LiteralString, item: dict[str, object]) -> None:
    cursor = await connection.execute(statement, (json.dumps([item]),))
    await cursor.fetchall()


async def measure(rig: Rig, options: argparse.Namespace) -> Found:
    """Turns of every way by (way, teams); the first round only warms up."""
    ways: list[Grouped | OneByOne] = [Grouped(rig, options.callers)]
    ways += [OneByOne(rig, count) for count in SINGLE]
    spread = {"one team": rig.teams[:1], f"{TEAMS} teams": rig.teams}
    found: Found = {}
    try:
        for number in range(options.rounds + 1):
            for label, teams in spread.items():
                for way in ways:
                    turn = await take_turn(rig, way, teams, options.seconds if number else 0.2)
                    if number:
                        found.setdefault((way.name, label), []).append(turn)
    finally:
        for way in ways:
            await way.close()
    rig.check()
    return found


async def take_turn(rig: Rig, way: Grouped | OneByOne, teams: Teams, seconds: float) -> Turn:
    turn = Turn()
    own, postgres = rig.meter.read()
    began = time.perf_counter()
    await way.run(turn, teams, began + seconds)
    turn.seconds = time.perf_counter() - began
    after_own, after_postgres = rig.meter.read()
    turn.own_cpu, turn.postgres_cpu = after_own - own, after_postgres - postgres
    return turn


def rate(turns: Sequence[Turn]) -> float:
    """Pairs a second, the median of the turns."""
    return statistics.median(turn.pairs / turn.seconds for turn in turns)


def table(found: Found) -> Iterator[str]:
    """Lines to print."""
    yield f"{'':<30}{'teams':<10}{'pairs/s':>9}{'hold p50':>10}{'p99 ms':>9}{'own cpu':>9}{'pg cpu':>8}"
    for (name, teams), turns in sorted(found.items(), key=lambda one: (one[0][1], one[0][0])):
        holds = sorted(value for turn in turns for value in turn.holds)
        pairs = sum(turn.pairs for turn in turns)
        own = sum(turn.own_cpu for turn in turns) / pairs * 1e6
        postgres = sum(turn.postgres_cpu for turn in turns) / pairs * 1e6
        yield (
            f"{name:<30}{teams:<10}{rate(turns):>9,.0f}{holds[len(holds) // 2]:>10.2f}"
            f"{holds[int(len(holds) * 0.99)]:>9.2f}{own:>9.0f}{postgres:>8.0f}"
        )
    for teams in ("one team", f"{TEAMS} teams"):
        best = max(rate(turns) for (name, of), turns in found.items() if of == teams and name != GROUPED)
        yield f"{teams}: in groups is {rate(found[GROUPED, teams]) / best:.1f} times the best of one a commit"
    hot = rate(found[GROUPED, "one team"]) / rate(found[GROUPED, f"{TEAMS} teams"])
    yield f"one hot team does {hot:.2f} of fifty teams"


@contextmanager
def database() -> Iterator[str]:
    """A migrated database, on TEST_DATABASE_URL's server when set, else on an embedded one that syncs its commits."""
    name = f"bench_{os.getpid()}"
    if given := os.environ.get("TEST_DATABASE_URL"):
        with _made(given, name) as url:
            yield url
        return
    data = Path(tempfile.mkdtemp(prefix="pxg-bench-"))
    data.chmod(0o711)  # root's servers run as another user, who has to pass through
    servers = EmbeddedServers(data)
    try:
        with servers, _made(servers.database_url, name) as url:
            yield url
    finally:
        for folder in {data, servers.home}:
            shutil.rmtree(folder)


@contextmanager
def _made(admin_url: str, name: str) -> Iterator[str]:
    address = make_url(admin_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        url = make_url(admin_url).set(database=name).render_as_string(hide_password=False)
        try:
            migrate.upgrade(url)
            yield url
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ledger", description=__doc__)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one way in one round")
    options = parser.parse_args(arguments)
    with database() as url:
        rig = Rig(url)
        try:
            for line in table(asyncio.run(measure(rig, options))):
                print(line)
        finally:
            rig.connection.close()
