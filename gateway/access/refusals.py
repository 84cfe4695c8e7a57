"""Why requests were refused: kept for a day, so that a request id can be explained.

Noting one costs a request nothing: it is put into a bounded queue, and a background loop writes the queue with one
statement a second. What does not fit, and what Postgres does not take, is dropped and counted. So that a flood does
not fill the table, only so many are noted for one key in a minute.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.clock import Clock
from gateway.db.engine import Database, StatementRefusedError
from gateway.db.tables import refusals, teams
from gateway.errors import GatewayError
from gateway.ids import lowest_uuid7, uuid7
from gateway.telemetry import Metrics

KEPT = timedelta(days=1)
WRITE_SECONDS = 1.0
BATCH = 1000
QUEUE = 5 * BATCH
A_MINUTE = 300  # of one key that was let in
STRANGERS_A_MINUTE = 10  # with one public id that was not, or with none
ALL_STRANGERS_A_MINUTE = 300
EXPIRED_BATCHES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refused request: the `reason` and `message` of its answer, and in `detail` the facts behind it.

    Holds no prompt, body or key. `key_id` without `team_id` is the public id in a key that was not accepted;
    `hold_id` is the hold the request had placed when it was refused. `detail["repeats"]` names the hold of the call
    that the request repeated.
    """

    request_id: str
    at: datetime
    team_id: UUID | None
    key_id: str | None
    route: str
    operation: str | None
    model: str | None
    status: int
    reason: str
    message: str | None
    detail: Mapping[str, Any]
    hold_id: UUID | None
    client: str | None


@dataclass(slots=True)
class Refusals:
    """The queue of one process; `write` and `expire` are run again and again beside the requests."""

    database: Database
    clock: Clock
    metrics: Metrics
    _waiting: deque[Refusal] = field(default_factory=deque)
    _noted: Counter[tuple[str | None, bool]] = field(default_factory=Counter)
    _strangers: int = 0
    _minute: int = 0

    def note(self, refusal: Refusal) -> None:
        """Puts it into the queue, or drops it. Never waits, never raises."""
        if not self._may_be_noted(refusal):
            self.metrics.refusals_dropped.labels("flood").inc()
        elif len(self._waiting) >= QUEUE:
            self.metrics.refusals_dropped.labels("queue").inc()
        else:
            self._waiting.append(refusal)

    async def write(self) -> None:
        """Writes down what waits, at most BATCH at a time. What Postgres does not take is dropped."""
        if not self._waiting:
            return
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        written = False
        try:
            async with self.database.autocommit() as connection:
                await connection.execute(_INSERT, {"items": _items(batch)})
            written = True
        except (GatewayError, StatementRefusedError):
            # Explaining is not worth more load on a database that is in trouble.
            return
        finally:
            if not written:
                self.metrics.refusals_dropped.labels("database").inc(len(batch))

    async def expire(self) -> None:
        """Forgets those older than a day, in small batches."""
        oldest = lowest_uuid7(self.clock.now() - KEPT)
        for _ in range(EXPIRED_BATCHES):
            async with self.database.autocommit() as connection:
                gone = await connection.execute(_EXPIRE, {"oldest": oldest, "batch": BATCH})
            if gone.rowcount < BATCH:
                return

    def _may_be_noted(self, refusal: Refusal) -> bool:
        minute = int(self.clock.monotonic() // 60)
        if minute != self._minute:
            self._minute = minute
            self._strangers = 0
            self._noted.clear()
        stranger = refusal.team_id is None
        if stranger and self._strangers >= ALL_STRANGERS_A_MINUTE:
            return False  # before it is counted: anyone can make up public ids
        whose = (refusal.key_id, stranger)
        if self._noted[whose] >= (STRANGERS_A_MINUTE if stranger else A_MINUTE):
            return False
        self._noted[whose] += 1
        self._strangers += stranger
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRefusal(Refusal):
    """A refusal as it was written down, with its team's slug."""

    id: UUID
    team: str | None


async def of_request(connection: AsyncConnection, request_id: str, limit: int) -> list[KeptRefusal]:
    """The refusals under this request id, newest first."""
    query = (
        select(refusals, teams.c.slug.label("team"))
        .join_from(refusals, teams, teams.c.id == refusals.c.team_id, isouter=True)
        .where(refusals.c.request_id == request_id)
        .order_by(refusals.c.id.desc())
        .limit(limit)
    )
    return [_kept(row) for row in await connection.execute(query)]


def _kept(row: Row[Any]) -> KeptRefusal:
    return KeptRefusal(**row._mapping)


def _items(batch: list[Refusal]) -> str:
    rows = [
        {name: getattr(one, name) for name in Refusal.__dataclass_fields__}
        | {"id": uuid7(round(one.at.timestamp() * 1000))}
        for one in batch
    ]
    return msgspec.json.encode(rows).decode()


_INSERT = text("""
INSERT INTO refusals
SELECT * FROM jsonb_to_recordset(CAST(:items AS jsonb)) AS given(
    id uuid, request_id text, at timestamptz, team_id uuid, key_id text, route text, operation text, model text,
    status smallint, reason text, message text, detail jsonb, hold_id uuid, client text)
""")
_EXPIRE = text(
    "DELETE FROM refusals WHERE id IN (SELECT id FROM refusals WHERE id < :oldest ORDER BY id LIMIT :batch)"
)
