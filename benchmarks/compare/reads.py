"""Reads that cost nothing: finished tasks, and the list of models."""

from __future__ import annotations

import asyncio
import json
import time

from benchmarks.compare import bench as running
from benchmarks.compare.bench import LOAD, Bench, load, take_turns
from benchmarks.compare.callers import opened
from benchmarks.compare.lab import FAST
from benchmarks.compare.paid import order
from benchmarks.compare.results import Sample
from benchmarks.compare.targets import GATEWAY, Target
from benchmarks.compare.wrk import Shot

TASKS = 1000
SUBMITTERS = 32
FINISHED_WITHIN = 60.0  # seconds, for all tasks
HOT_ONE, HOT, MANY = "hot task, 1 connection", "hot task, 64 connections", "1,000 tasks, 64 connections"
MODELS_ONE, MODELS = "1 connection", "64 connections"
SUBMIT = "/v1/async/images/generations"


class Polls:
    """GET /v1/tasks/ID of finished tasks, which the gateway knows from their submission."""

    name = "polls"
    title = "Polls of finished tasks"
    metrics = LOAD

    def run(self, bench: Bench) -> None:
        tasks: dict[str, list[str]] = {}

        def turn(target: Target, point: str, seconds: float | None = None) -> Sample:
            if target.name not in tasks:
                tasks[target.name] = asyncio.run(finished(target, TASKS))
            ids = tasks[target.name] if point == MANY else tasks[target.name][:1]
            shot = Shot("GET", [f"/v1/tasks/{one}" for one in ids], None, target.headers, [target.token])
            return load(bench, target, shot, 1 if point == HOT_ONE else 64, seconds)

        targets = bench.lab.targets(bench.names(), FAST)
        take_turns(
            bench,
            self.name,
            (HOT_ONE, HOT, MANY),
            targets,
            turn,
            warm=lambda target, point: turn(target, point, running.WARMING),
        )


class Models:
    """GET /v1/models."""

    name = "models"
    title = "List of models"
    metrics = LOAD

    def run(self, bench: Bench) -> None:
        def turn(target: Target, point: str, seconds: float | None = None) -> Sample:
            shot = Shot("GET", ["/v1/models"], None, target.headers, [target.token])
            return load(bench, target, shot, int(point.split()[0]), seconds)

        take_turns(
            bench,
            self.name,
            (MODELS_ONE, MODELS),
            bench.lab.targets(bench.names(), FAST),
            turn,
            warm=lambda target, point: turn(target, point, running.WARMING),
        )


async def finished(target: Target, count: int) -> list[str]:
    """Ids of finished tasks: submitted through the gateway and polled until they are, any ids for the others."""
    if target.name != GATEWAY:
        return [f"task_{number:032x}" for number in range(count)]
    found = await submitted(target, count)
    callers, left = await opened(target, SUBMITTERS), list(found)
    deadline = time.monotonic() + FINISHED_WITHIN

    async def poll(number: int) -> None:
        for task in found[number::SUBMITTERS]:
            while True:
                seen = await callers[number].ask("GET", f"/v1/tasks/{task}")
                if seen.status == 200 and json.loads(seen.body)["status"] == "completed":
                    left.remove(task)
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{len(left)} tasks did not finish: {seen.status} {seen.body[:200]!r}")
                await asyncio.sleep(0.2)

    await asyncio.gather(*(poll(number) for number in range(SUBMITTERS)))
    for caller in callers:
        caller.close()
    return found


async def submitted(target: Target, count: int, prompt: str = "A cup") -> list[str]:
    """Ids of so many new tasks."""
    callers = await opened(target, min(count, SUBMITTERS))
    ids: list[str] = []

    async def submit(number: int) -> None:
        for _ in range(number, count, len(callers)):
            seen = await callers[number].ask("POST", SUBMIT, order(prompt))
            if seen.status != 200:
                raise RuntimeError(f"a submission got {seen.status}: {seen.body[:300]!r}")
            ids.append(json.loads(seen.body)["id"])

    await asyncio.gather(*(submit(number) for number in range(len(callers))))
    for caller in callers:
        caller.close()
    return ids
