"""Processes that read tasks on a real Postgres; Pixapi is a function of the test."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from gateway.clock import SystemClock
from gateway.credits.amount import MICRO
from gateway.credits.ledger import Ledger
from gateway.credits.terms import NewTask, Order
from gateway.db.engine import Database
from gateway.ids import uuid7
from gateway.pool.dispatch import Dispatcher
from gateway.pool.pool import Pool
from gateway.pool.vault import Vault
from gateway.spool import SpoolBudget
from gateway.tasks.due import DueTasks
from gateway.tasks.entries import TaskEntries
from gateway.tasks.reader import TaskReader
from gateway.tasks.reconciler import Reconciler
from gateway.tasks.registry import ReadRules, Registry
from gateway.tasks.schedule import Pace
from gateway.tasks.watch import Watch
from gateway.telemetry import Metrics
from gateway.upstream.client import Call, Reply, UpstreamClient
from tests.fakes.cache import GoneCache
from tests.fakes.events import LinkedEvents

TEAM, KEY = UUID(int=1), "0123456789"
QUOTE = 8 * MICRO
BODIES = SpoolBudget(0, Path("/nonexistent"))  # small bodies stay in memory
_numbers = itertools.count(1)

React = Callable[[str], Awaitable[tuple[int, str]]]


class Pixapi(UpstreamClient):
    """Answers `GET /v1/tasks/{id}` by `react(id)`, a status and the JSON behind the id, and counts."""

    def __init__(self, react: React) -> None:
        self.react = react
        self.reads: Counter[str] = Counter()
        self.at: list[float] = []

    async def send(self, call: Call) -> Reply:
        task = call.path.rsplit("/", 1)[1]
        self.reads[task] += 1
        self.at.append(time.monotonic())
        status, rest = await self.react(task)
        body = BODIES.body()
        await body.write(f'{{"id":"{task}",{rest}}}'.encode())
        return Reply(status, b"application/json", None, body)


async def done(_: str) -> tuple[int, str]:
    return 200, '"status":"completed","credits_cost":1.5'


async def running(_: str) -> tuple[int, str]:
    return 200, '"status":"processing","credits_cost":0'


@dataclass
class Process:
    """What one gateway process has of this, with its own pool and memory."""

    registry: Registry
    due: DueTasks
    reader: TaskReader
    watch: Watch
    reconciler: Reconciler
    metrics: Metrics

    async def close(self) -> None:
        self.watch.close()
        await self.reconciler.close()
        await self.reader.close()


@dataclass
class Rig:
    url: str
    database: Database
    ledger: Ledger
    vault: Vault
    pixapi: Pixapi = field(default_factory=lambda: Pixapi(done))
    processes: list[Process] = field(default_factory=list)
    events: list[LinkedEvents] = field(default_factory=list)

    async def run(self, statement: str, **values: Any) -> list[Any]:
        async with self.database.autocommit() as connection:
            found = await connection.execute(text(statement), values)
            return list(found.all()) if found.returns_rows else []

    async def upstream_key(self, account: str = "acct") -> UUID:
        ident = uuid7()
        secret = f"sk_{account}_{ident.hex}"
        await self.run(
            "INSERT INTO upstream_keys (id, label, account, secret, fingerprint, last4)"
            " VALUES (:id, :label, :account, :secret, :finger, 'last')",
            id=ident,
            label=str(ident),
            account=account,
            secret=self.vault.seal(ident, secret),
            finger=self.vault.fingerprint(secret),
        )
        return ident

    async def hold(self) -> tuple[UUID, Order]:
        order = Order(
            team_id=TEAM,
            key_id=KEY,
            request_id=f"req_{next(_numbers)}",
            operation="videos.generations",
            model="veo",
            quote=QUOTE,
        )
        return (await self.ledger.place(order)).id, order

    async def task(self, key: UUID, *, due: bool = True) -> tuple[str, UUID]:
        """A new task, due at once, and its hold."""
        hold, order = await self.hold()
        task = NewTask(
            id=f"task_{next(_numbers)}", upstream_key_id=key, status="submitted", body=b'{"id":"first"}'
        )
        await self.ledger.bind(hold, order, task, [])
        if due:
            await self.run("UPDATE tasks SET next_read_at = now() WHERE id = :id", id=task.id)
        return task.id, hold

    async def state(self, hold: UUID) -> Any:
        (row,) = await self.run("SELECT * FROM holds WHERE id = :id", id=hold)
        return row

    async def stored(self, task: str) -> Any:
        query = "SELECT *, extract(epoch FROM next_read_at - now()) AS next_in FROM tasks WHERE id = :id"
        (row,) = await self.run(query, id=task)
        return row

    async def process(self, reads_per_second: float = 100, lease: float = 20.0) -> Process:
        """One more gateway process that has read its pool."""
        clock, metrics, pace = SystemClock(), Metrics(), Pace()
        pool = Pool(self.database, self.vault, clock, reads_per_second=reads_per_second)
        await pool.refresh()
        rules = ReadRules(slots=math.ceil(reads_per_second), span=1.0)
        registry, due = Registry(self.database, rules), DueTasks(self.database)
        dispatcher = Dispatcher(pool, self.pixapi, clock)
        entries, events = TaskEntries(GoneCache(), clock), LinkedEvents(self.events)
        watch = Watch(registry, due, entries, events, clock, lambda: sum(pool.read_room().values()))
        reader = TaskReader(
            registry,
            self.ledger,
            dispatcher,
            clock,
            entries=entries,
            watch=watch,
            pace=pace,
            metrics=metrics,
        )
        reconciler = Reconciler(
            due,
            reader,
            pool,
            pace,
            metrics=metrics,
            clock=clock,
            reads_per_second=reads_per_second,
            lease=lease,
        )
        made = Process(registry, due, reader, watch, reconciler, metrics)
        self.processes.append(made)
        return made

    async def until(self, check: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not await check():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            await asyncio.sleep(0.02)

    async def settled(self, *held: UUID) -> bool:
        return all([(await self.state(hold)).state == "settled" for hold in held])

    @asynccontextmanager
    async def reconciling(self, *processes: Process) -> AsyncIterator[None]:
        loops = [asyncio.create_task(process.reconciler.run()) for process in processes]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.wait(loops)


@asynccontextmanager
async def tasks_on(database_url: str) -> AsyncIterator[Rig]:
    """A team with a key on a migrated database."""
    database = Database(database_url)
    ledger = Ledger(database)
    found = Rig(database_url, database, ledger, Vault(["master-key-of-these-tests-0123456789"]))
    await found.run("INSERT INTO teams (id, slug, name, unlimited) VALUES (:id, 'a', 'A', true)", id=TEAM)
    await found.run(
        "INSERT INTO team_keys (id, team_id, name, digest, last4) VALUES (:id, :team, 'k', '\\x00', 'last')",
        id=KEY,
        team=TEAM,
    )
    yield found
    for process in found.processes:
        await process.close()
    await ledger.close(1)
    await database.close()
