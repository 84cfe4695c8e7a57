"""Tasks without Postgres: who owns which, and what was stored of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

from gateway import errors
from gateway.credits.ledger import Ledger
from gateway.credits.terms import Conclusion
from gateway.tasks.registry import Registry, Seen, Stored, TaskRecord


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

    async def find(self, team_id: UUID, task_id: str) -> TaskRecord | None:
        self.finds += 1
        await self.gate.wait()
        if self.down:
            raise errors.dependency_unavailable("down")
        record = self.records.get(task_id)
        return record if record is not None and record.team_id == team_id else None

    async def store(self, record: TaskRecord, seen: Seen) -> Stored:
        if self.full:
            raise errors.dependency_unavailable("full")
        known = self.records[record.id]
        if known.ended:
            return Stored(known.body, False)
        self.records[record.id] = replace(
            known, status=seen.status, body=seen.body, ended=seen.conclusion is not None, failed_reads=0
        )
        if seen.conclusion is not None:
            self.conclusions.append(seen.conclusion)
        return Stored(seen.body, True)

    async def note_failure(self, record: TaskRecord, next_read: float) -> None:
        if self.full:
            raise errors.dependency_unavailable("full")
        known = self.records[record.id]
        self.records[record.id] = replace(known, failed_reads=known.failed_reads + 1)


class FakeLedger(Ledger):
    """Knows only which tasks are not written down yet."""

    def __init__(self, *unbound: str) -> None:
        self.unbound = set(unbound)

    def is_unbound(self, task_id: str) -> bool:
        return task_id in self.unbound
