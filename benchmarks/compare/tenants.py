"""How the paid call fares with many keys at random, and with fifty teams instead of one."""

from __future__ import annotations

from benchmarks.compare import bench as running
from benchmarks.compare.bench import LOAD, Bench, load, take_turns
from benchmarks.compare.lab import FAST
from benchmarks.compare.paid import shot
from benchmarks.compare.product import Gateway
from benchmarks.compare.results import Sample
from benchmarks.compare.targets import GATEWAY, Target

COUNTS = (10, 10_000, 100_000)
POINTS = [f"{count:,} keys" for count in COUNTS]
ONE_TEAM, FIFTY_TEAMS = "one team", "fifty teams"
CONNECTIONS = 64


class Keys:
    """Paid calls, each by a key drawn at random from so many; all are stored from the beginning."""

    name = "keys"
    title = "Paid POST by keys at random, 64 connections"
    metrics = LOAD

    def run(self, bench: Bench) -> None:
        if GATEWAY not in bench.options.targets:
            return
        gateway = bench.lab.gateway(FAST)
        try:
            made = gateway.add_keys(COUNTS[-1])
            chosen = dict(zip(POINTS, (made[:count] for count in COUNTS), strict=True))

            def turn(target: Target, point: str, seconds: float | None = None) -> Sample:
                return load(bench, target, shot(target, chosen[point]), CONNECTIONS, seconds)

            # Not in turns: memory has to be seen with ten keys before the others were used.
            for point in POINTS:
                take_turns(
                    bench,
                    self.name,
                    [point],
                    [gateway],
                    turn,
                    warm=lambda target, point: turn(target, point, running.WARMING),
                )
        finally:
            gateway.stop()


class Teams:
    """Paid calls of one team and one key, and of fifty teams with a key each."""

    name = "teams"
    title = "Paid POST of one hot team and of fifty, 64 connections"
    metrics = LOAD

    def run(self, bench: Bench) -> None:
        gateways = bench.lab.targets(bench.names([GATEWAY]), FAST)

        def turn(target: Target, point: str, seconds: float | None = None) -> Sample:
            tokens = target.tokens if isinstance(target, Gateway) and point == FIFTY_TEAMS else None
            return load(bench, target, shot(target, tokens), CONNECTIONS, seconds)

        take_turns(
            bench,
            self.name,
            [ONE_TEAM, FIFTY_TEAMS],
            gateways,
            turn,
            warm=lambda target, point: turn(target, point, running.WARMING),
        )
