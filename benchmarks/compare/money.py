"""The ledger without HTTP, beside what pgbench gets out of the same functions on the same Postgres."""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import make_url

from benchmarks import ledger
from benchmarks.compare.bench import Bench
from benchmarks.compare.results import Metric, Sample
from benchmarks.compare.targets import Target

CALLERS = 64
BATCH = 64
SINGLE, BATCHED = "pgbench, one a commit", "pgbench, 64 a commit"
CLIENTS = {SINGLE: (1, 4, 8), BATCHED: (1, 2)}
ITEMS = {SINGLE: 1, BATCHED: BATCH}
ONE_TEAM, FIFTY_TEAMS = "one team", "fifty teams"
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
# An id as the gateway makes it: the time in milliseconds first, so that new rows lie together.
_PREPARE = """
CREATE FUNCTION bench_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7'
            || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 5, 15))::uuid
$$;
CREATE TABLE bench_teams AS
    SELECT row_number() OVER (ORDER BY k.name, k.id) AS number, t.id AS team, k.id AS key
    FROM teams t JOIN team_keys k ON k.team_id = t.id;
CREATE UNIQUE INDEX ON bench_teams (number);
"""
_SCRIPT = """
\\set first random(1, {teams})
SELECT CAST(array_agg(id) AS text) AS ids FROM gateway_place_calls((
    SELECT jsonb_agg(jsonb_build_object('id', bench_id(), 'team', b.team, 'key', b.key, 'request', 'r',
                                        'operation', 'images', 'model', 'm', 'quote', {quote}))
    FROM generate_series(0, {items} - 1) n
    JOIN bench_teams b ON b.number = 1 + (CAST(:first AS integer) + n) % {teams}), NULL) \\gset
SELECT count(*) FROM gateway_end((
    SELECT jsonb_agg(jsonb_build_object('id', id, 'state', 'settled', 'settled', {quote}, 'flags', CAST('[]' AS jsonb),
                                        'sent', CAST('[]' AS jsonb)))
    FROM unnest(CAST(:ids AS uuid[])) id), NULL);
"""


class Money:
    """A pair is one hold placed and settled."""

    name = "ledger"
    title = f"Ledger alone: {CALLERS} callers without HTTP, beside pgbench on the same functions"
    metrics = (
        Metric("rate", "pairs/s", 0),
        Metric("p50", "hold p50 ms", 2),
        Metric("p99", "hold p99 ms", 2),
        Metric("cpu", "own CPU µs a pair", 0),
        Metric("postgres", "Postgres CPU µs a pair", 0),
    )

    def run(self, bench: Bench) -> None:
        rig = ledger.Rig(bench.lab.urls()[0])
        try:
            rig.connection.execute(_PREPARE)
            self._product(bench, rig)
            if program := shutil.which("pgbench"):
                self._pgbench(bench, rig, program)
            else:
                bench.note("ledger: pgbench was not found on PATH, so its limits are missing")
        finally:
            rig.connection.close()

    def _product(self, bench: Bench, rig: ledger.Rig) -> None:
        given = argparse.Namespace(
            callers=CALLERS, rounds=bench.options.rounds, seconds=bench.options.seconds / 2
        )
        with bench.lab.measured(Target(name=ledger.GROUPED, base="")) as spent:
            found = asyncio.run(ledger.measure(rig, given))
        for (way, teams), turns in found.items():
            point = ONE_TEAM if teams == "one team" else FIFTY_TEAMS
            for turn in turns:
                holds = sorted(turn.holds)
                values = {
                    "rate": turn.pairs / turn.seconds,
                    "p50": holds[len(holds) // 2],
                    "p99": holds[int(len(holds) * 0.99)],
                    "cpu": turn.own_cpu / turn.pairs * 1e6,
                    "postgres": turn.postgres_cpu / turn.pairs * 1e6,
                }
                bench.add(self.name, point, Target(name=way, base=""), Sample(values, spent.noise))

    def _pgbench(self, bench: Bench, rig: ledger.Rig, program: str) -> None:
        for _ in range(bench.options.rounds):
            for point, teams in ((ONE_TEAM, 1), (FIFTY_TEAMS, ledger.TEAMS)):
                for way, clients in CLIENTS.items():
                    script = bench.lab.folder / "pairs.sql"
                    script.write_text(_SCRIPT.format(teams=teams, items=ITEMS[way], quote=ledger.CREDIT))
                    target = Target(name=way, base="")
                    with bench.lab.measured(target) as spent:
                        best = max(pgbench(program, rig.url, script, count) for count in clients)
                    bench.add(self.name, point, target, Sample({"rate": best * ITEMS[way]}, spent.noise))


def pgbench(program: str, url: str, script: Path, clients: int) -> float:
    """Scripts a second that so many connections get through, in two seconds."""
    place = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    command = [program, "-n", "-T2", "-M", "prepared", f"-c{clients}", "-f", str(script), place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = _TPS.search(done.stdout)
    if found is None:
        raise RuntimeError(f"pgbench said no rate: {done.stderr[-1000:]}")
    return float(found[1])
