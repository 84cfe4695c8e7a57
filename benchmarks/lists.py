"""Every list of the admin API on many rows, with every filter, at its beginning and in its middle.

The rows of the table are called in this process, as the command line calls them. A `*` marks what takes longer than
promised; below the table stand the scans of whole tables that have many rows.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy import make_url

from benchmarks import rows
from benchmarks.ledger import database
from benchmarks.plans import Statement, recorded
from benchmarks.rows import Sizes
from gateway.access.admin_tokens import AdminPrincipal
from gateway.access.key_format import Peppers
from gateway.access.session_rules import SessionRules
from gateway.admin.api.answers import encode
from gateway.admin.api.binding import invoke
from gateway.admin.api.route import AdminApi, Topic
from gateway.admin.api.routes import ROUTES
from gateway.clock import SystemClock
from gateway.db import paging
from gateway.db.engine import Database
from gateway.pool.vault import Vault

PROMISED = 200.0  # milliseconds
HOLDS = 1_000_000
BIG = 50_000  # rows from which a scan of the whole table is told
ROWS = {(row.method, row.path): row for row in ROUTES}
NOBODY = AdminPrincipal("benchmark", "viewer")


@dataclass(frozen=True, slots=True)
class Case:
    """One call of a row."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        path = self.path
        for name, value in self.params.items():
            path = path.replace(f"{{{name}}}", value)
        shown = {name: "…" if name == "after" else value for name, value in self.query.items()}
        query = "&".join(f"{name}={value}" for name, value in shown.items())
        return f"{path}?{query}" if query else path


@dataclass(slots=True)
class Timing:
    """How long a case took, in milliseconds, and what it asked Postgres."""

    case: Case
    took: list[float]
    statements: list[Statement]


class Silent:
    """`Changed` that tells nobody: nothing is changed here."""

    async def announce(self, topic: Topic, ident: str) -> None:
        raise AssertionError(f"{topic} {ident} was changed by reading")


def api_on(own: Database) -> AdminApi:
    """The admin API of a database, for reading."""
    secret = ["a secret that nothing is kept with here"]
    return AdminApi(
        database=own,
        peppers=Peppers(secret),
        vault=Vault(secret),
        clock=SystemClock(),
        changed=Silent(),
        sessions=SessionRules(idle=1800, absolute=28_800),
    )


HOLD_FILTERS: tuple[Mapping[str, str], ...] = (
    {},
    *({"state": state} for state in ("held", "unknown", "settled", "released")),
    {"team": "team-0"},
    {"team": "team-7"},
    {"key": "k000000001"},
    {"key": "k000009000"},
    {"model": "model-0"},
    {"model": "model-11"},
    {"model": "model-none"},
    {"request_id": "req_777"},
    {"team": "team-0", "state": "unknown"},
    {"team": "team-0", "state": "released"},
    {"team": "team-7", "model": "model-0"},
    {"key": "k000000001", "model": "model-11"},
    {"model": "model-0", "state": "released"},
    {"from": "2026-01-01", "to": "2030-01-01"},
    {"model": "model-0", "from": "2026-01-01"},
)
TASK_FILTERS: tuple[Mapping[str, str], ...] = (
    {},
    {"ended": "false"},
    {"ended": "true"},
    *({"status": status} for status in ("processing", "completed", "failed", "cancelled", "never")),
    {"team": "team-0"},
    {"team": "team-7", "status": "cancelled"},
    {"team": "team-0", "ended": "false"},
)
AUDIT_FILTERS: tuple[Mapping[str, str], ...] = (
    {},
    {"subject_type": "key"},
    {"subject_type": "admin-token"},
    {"subject_type": "key", "subject_id": "k000000001"},
    {"team": "team-0"},
    {"actor": "admin-token:1"},
    {"actor": "cli:seldom"},
    {"action": "key.update"},
    {"action": "key.rotate"},
)
USAGE: tuple[Mapping[str, str], ...] = (
    *({"by": by} for by in ("team", "key", "model", "operation", "day")),
    {"by": "team,model"},
    {"by": "team,day"},
    {"by": "team,model", "format": "csv"},
    {"by": "key,model,day", "team": "team-7"},
    {"by": "key,day", "team": "team-7"},
)


def cases(middle: Mapping[str, str]) -> Iterator[Case]:
    """Every call to measure; `middle` are cursors into the middle of lists."""
    for path, filters, listed in (
        ("/holds", HOLD_FILTERS, "holds"),
        ("/requests", HOLD_FILTERS, "holds"),
        ("/tasks", TASK_FILTERS, "tasks"),
        ("/audit", AUDIT_FILTERS, "audit"),
    ):
        for narrow in filters:
            yield Case(path, {**narrow, "limit": "200"})
            if "request_id" not in narrow:
                yield Case(path, {**narrow, "limit": "200", "after": middle[listed]})
    for path, listed in (("/teams", "teams"), ("/admin-tokens", "admin_tokens")):
        yield Case(path, {"limit": "200"})
        yield Case(path, {"limit": "200", "after": middle[listed]})
    for narrow in ({}, {"state": "active"}, {"state": "revoked"}, {"team": "team-0"}):
        yield Case("/keys", {**narrow, "limit": "200"})
    keys = "/teams/{team}/keys"
    yield Case(keys, {"limit": "200"}, {"team": "team-0"})
    yield Case(keys, {"limit": "200", "after": middle["team_keys"]}, {"team": "team-0"})
    yield Case("/upstream-keys", {"limit": "200"})
    for query in USAGE:
        yield Case("/usage", query)
    yield Case("/status")
    yield Case("/teams/{team}", {}, {"team": "team-7"})
    yield Case("/teams/{team}/quotas", {}, {"team": "team-7"})
    yield Case("/tasks/{id}", {}, {"id": "task_77"})
    yield Case("/requests/{request_id}/explain", {}, {"request_id": "req_77"})
    yield Case("/requests/{request_id}/explain", {}, {"request_id": "refused_77"})


_MIDDLES = {
    "holds": "SELECT id FROM holds ORDER BY id OFFSET (SELECT count(*) / 2 FROM holds) LIMIT 1",
    "tasks": "SELECT created_at, id FROM tasks ORDER BY 1, 2 OFFSET (SELECT count(*) / 2 FROM tasks) LIMIT 1",
    "audit": "SELECT id FROM audit_entries ORDER BY 1 OFFSET (SELECT count(*) / 2 FROM audit_entries) LIMIT 1",
    "teams": "SELECT id FROM teams ORDER BY 1 OFFSET (SELECT count(*) / 2 FROM teams) LIMIT 1",
    "admin_tokens": "SELECT id FROM admin_tokens ORDER BY 1 OFFSET (SELECT count(*) / 2 FROM admin_tokens) LIMIT 1",
    "team_keys": "SELECT created_at, id FROM team_keys WHERE team_id = (SELECT id FROM teams WHERE slug = 'team-0')"
    " ORDER BY 1, 2 OFFSET 5 LIMIT 1",
}


def cursors(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """A cursor into the middle of each list, by the list's name."""
    found = {}
    for name, query in _MIDDLES.items():
        row = connection.execute(query.encode()).fetchone()
        if row is None:
            raise SystemExit(f"there are no {name}")
        found[name] = paging.encode(
            name, [value.isoformat() if hasattr(value, "isoformat") else str(value) for value in row]
        )
    return found


async def measure(url: str, wanted: Sequence[Case], times: int) -> list[Timing]:
    """Each case so many times, one after the other; each line is printed when it is known."""
    own = Database(url, pool_size=1, statement_timeout=30.0)
    api = api_on(own)
    found = []
    try:
        for case in wanted:
            with recorded(own) as statements:
                await _once(api, case)
            took = [await _once(api, case) for _ in range(times)]
            found.append(Timing(case, took, statements))
            print(line(found[-1]), flush=True)
    finally:
        await own.close()
    return found


async def _once(api: AdminApi, case: Case) -> float:
    began = time.perf_counter()
    answer = await invoke(api, ROWS["GET", case.path], NOBODY, case.params, case.query, {})
    encode(answer)
    return (time.perf_counter() - began) * 1000


def line(one: Timing) -> str:
    """A line of the table."""
    slow = " *" if max(one.took) > PROMISED else ""
    return f"{one.case.name:<70}{statistics.median(one.took):>9.1f}{max(one.took):>9.1f}{slow}"


def ending(found: Sequence[Timing], connection: psycopg.Connection[Any]) -> Iterator[str]:
    """What is printed below the table."""
    slow_ones = sum(max(one.took) > PROMISED for one in found)
    yield f"{len(found)} calls, {slow_ones} of them slower than {PROMISED:.0f} ms"
    big = {row[0] for row in connection.execute("SELECT relname FROM pg_class WHERE reltuples > %s", [BIG])}
    for one in found:
        scanned = {
            str(node.get("Relation Name"))
            for statement in one.statements
            for node in statement.plan(connection)
            if node["Node Type"].endswith("Seq Scan")
        } & big
        if scanned:
            yield f"scanned whole by {one.case.name}: {', '.join(sorted(scanned))}"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks lists", description=__doc__)
    parser.add_argument("--holds", type=int, default=HOLDS)
    parser.add_argument("--times", type=int, default=20, help="each call is made")
    parser.add_argument("--only", default="", help="paths that begin so")
    options = parser.parse_args(arguments)
    sizes = Sizes(holds=options.holds, tasks=options.holds * 3 // 10)
    with database() as url:
        address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True) as connection:
            began = time.perf_counter()
            rows.fill(connection, sizes, lambda name: print(f"making {name} …", flush=True))
            print(f"{sizes} in {time.perf_counter() - began:.0f} s", flush=True)
            asyncio.run(rows.sum_days(url))
            wanted = [case for case in cases(cursors(connection)) if case.path.startswith(options.only)]
            print(f"{'':<70}{'p50 ms':>9}{'max ms':>9}")
            for below in ending(asyncio.run(measure(url, wanted, options.times)), connection):
                print(below, flush=True)
