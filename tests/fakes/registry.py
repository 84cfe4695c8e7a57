"""Tasks without Postgres: who owns which, and what was stored of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from gateway import errors
from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion
from gateway.tasks.due import DueTasks
from gateway.tasks.registry import Begun, Registry, Seen, Stored, TaskRecord


class FakeRegistry(Registry):
    """A registry in memory. `gate` holds look-ups up; `down` fails them; `full` fails stores."""

    def __init__(self, *records: TaskRecord) -> None:
        self.records = {record.id: record for record in records}
        self.conclusions: list[Conclusion] = []
        self.finds = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False
        self.full = False
        self.verdicts: list[Begun] = []  # what begin_read answers before it says go
        self.begun = 0

    async def find(self, team_id: UUID, task_id: str) -> TaskRecord | None:
        self.finds += 1
        await self.gate.wait()
        if self.down:
            raise errors.dependency_unavailable("down")
        record = self.records.get(task_id)
        return record if record is not None and record.team_id == team_id else None

    async def begin_read(self, task_id: str, key_id: UUID, *, again: bool = False) -> Begun:
        if self.verdicts:
            return self.verdicts.pop(0)
        self.begun += 1
        return Begun("go", self.begun)

    async def renew(self, record: TaskRecord, body: bytes | None) -> None:
        if body is not None:
            self.records[record.id] = replace(self.records[record.id], body=body)

    async def changed(self, seen: Mapping[str, str]) -> list[TaskRecord]:
        return [self.records[task] for task, status in seen.items() if self.records[task].status != status]

    async def store(self, record: TaskRecord, seen: Seen) -> Stored:
        if self.full:
            raise errors.dependency_unavailable("full")
        known = self.records[record.id]
        if known.ended:
            return Stored(known.status, known.body, True, False)
        ended = seen.conclusion is not None
        self.records[record.id] = replace(
            known, status=seen.status, body=seen.body, ended=ended, failed_reads=0, reads=seen.number
        )
        if seen.conclusion is not None:
            self.conclusions.append(seen.conclusion)
        return Stored(seen.status, seen.body, ended, True)

    async def note_failure(self, record: TaskRecord, next_read: float) -> None:
        if self.full:
            raise errors.dependency_unavailable("full")
        known = self.records[record.id]
        self.records[record.id] = replace(known, failed_reads=known.failed_reads + 1)


class FakeDueTasks(DueTasks):
    """Notes whom somebody waits for."""

    def __init__(self) -> None:
        self.hurried: list[list[str]] = []

    async def hurry(self, task_ids: Sequence[str], most: int, every: float) -> None:
        self.hurried.append(list(task_ids)[:most])


class FakeLedger(Ledger):
    """Knows only which tasks are not written down yet."""

    def __init__(self, *unbound: str) -> None:
        self.unbound = set(unbound)

    def is_unbound(self, team_id: UUID, task_id: str) -> bool:
        return task_id in self.unbound
