"""The records of paid calls that can be repeated: found by Idempotency-Key or by fingerprint, with what was answered.

A record is made with its hold and goes when nothing was executed (see the migration). What its hold says counts where
the record says less: a process may have been killed between the two.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ARRAY, Float, Uuid, and_, any_, bindparam, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.direct import Direct
from gateway.db.engine import Database
from gateway.db.tables import holds, idempotency_records, tasks

BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A call that can be repeated. `state` is running, ended or unknown, `hold` its hold's; with `headers` its
    answer is kept: in `body`, in the file `path`, or as an error in the headers."""

    hold_id: UUID
    fingerprint: bytes
    state: str
    hold: str
    model: str
    task_id: str | None
    status: int | None
    headers: dict[str, Any] | None
    body: bytes | None
    path: str | None
    ended_ago: float  # seconds since its hold ended, or its task was accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer as it is stored: `headers` hold the content type or the error."""

    state: str
    status: int
    headers: dict[str, Any]
    body: bytes | None = None
    path: str | None = None
    lives: float | None = None  # seconds from now; None leaves the record's own time


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeatability:
    """How a call can be repeated: by its Idempotency-Key, or else by an SDK's retries, of which `taken` joined it."""

    hold_id: UUID
    by_key: bool
    state: str
    taken: int


async def of_holds(connection: AsyncConnection, hold_ids: Collection[UUID]) -> dict[UUID, Repeatability]:
    """How the calls of these holds can be repeated; those that cannot (any more) are left out."""
    query = select(
        idempotency_records.c.hold_id,
        idempotency_records.c.idempotency_key.is_not(None).label("by_key"),
        idempotency_records.c.state,
        idempotency_records.c.taken,
    ).where(idempotency_records.c.hold_id.in_(hold_ids))
    return {row.hold_id: Repeatability(**row._mapping) for row in await connection.execute(query)}


class Records:
    """Raises GatewayError 503 when Postgres cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_key(self, team_id: UUID, idempotency_key: str) -> Record | None:
        """The team's call with this Idempotency-Key."""
        rows = await self._database.ask(_BY_KEY, team=team_id, key=idempotency_key)
        return Record(**rows[0]._asdict()) if rows else None

    async def by_hold(self, hold_id: UUID) -> Record | None:
        return (await self.by_holds([hold_id])).get(hold_id)

    async def by_holds(self, hold_ids: Sequence[UUID]) -> dict[UUID, Record]:
        """Those of these holds that have a record."""
        rows = await self._database.ask(_BY_HOLDS, ids=list(hold_ids))
        return {row.hold_id: Record(**row._asdict()) for row in rows}

    async def take(
        self, key_id: str, fingerprint: bytes, number: int, *, any_number: bool, window: float, grace: float
    ) -> Record | None:
        """The oldest call of this team key that its repeat `number` may join; taken, so that no other joins it."""
        values = {
            "key": key_id,
            "wanted": fingerprint,
            "number": number,
            "any_number": any_number,
            "joinable": timedelta(seconds=window),
            "grace": timedelta(seconds=grace),
        }
        async with self._database.autocommit() as connection:
            found: UUID | None = await connection.scalar(_TAKE, values)
        return None if found is None else await self.by_hold(found)

    async def keep(self, hold_id: UUID, kept: Kept) -> None:
        """Writes an answer down; what was written first stays."""
        await self._database.ask(
            _KEEP,
            hold=hold_id,
            state=kept.state,
            status=kept.status,
            headers=msgspec.json.encode(kept.headers).decode(),
            body=kept.body,
            path=kept.path,
            lives=None if kept.lives is None else timedelta(seconds=kept.lives),
        )

    async def delivered(self, hold_ids: Sequence[UUID], lives: float) -> None:
        """The answers of these calls were written out in full: their records are of use for `lives` seconds more."""
        await self._database.ask(_DELIVERED, ids=list(hold_ids), lives=timedelta(seconds=lives))

    async def clear(self) -> list[str]:
        """Deletes what has expired; the files that held answers."""
        files: list[str] = []
        deleted = BATCH
        while deleted == BATCH:
            paths = await self._clear_some()
            files += [path for path in paths if path is not None]
            deleted = len(paths)
        return files

    async def _clear_some(self) -> Sequence[str | None]:
        expired = (
            select(idempotency_records.c.hold_id)
            .where(idempotency_records.c.expires_at <= func.now())
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        statement = (
            delete(idempotency_records)
            .where(idempotency_records.c.hold_id.in_(expired))
            .returning(idempotency_records.c.body_path)
        )
        async with self._database.autocommit() as connection:
            return (await connection.execute(statement)).scalars().all()


_RECORD = select(
    idempotency_records.c.hold_id,
    idempotency_records.c.fingerprint,
    idempotency_records.c.state,
    idempotency_records.c.status,
    idempotency_records.c.headers,
    idempotency_records.c.body,
    idempotency_records.c.body_path.label("path"),
    holds.c.state.label("hold"),
    holds.c.model,
    holds.c.task_id,
    func.extract(
        "epoch",
        func.now() - func.coalesce(tasks.c.created_at, holds.c.unknown_at, holds.c.ended_at, func.now()),
    )
    .cast(Float)
    .label("ended_ago"),
).select_from(
    idempotency_records.join(holds, holds.c.id == idempotency_records.c.hold_id).outerjoin(
        # By the task's own id: it is the primary key.
        tasks,
        and_(tasks.c.id == holds.c.task_id, tasks.c.hold_id == holds.c.id),
    )
)

_BY_KEY = Direct(
    _RECORD.where(
        idempotency_records.c.team_id == bindparam("team"),
        idempotency_records.c.idempotency_key == bindparam("key"),
        idempotency_records.c.expires_at > func.now(),
    )
)
_BY_HOLDS = Direct(_RECORD.where(idempotency_records.c.hold_id == any_(bindparam("ids", type_=ARRAY(Uuid)))))

_KEEP = Direct(
    text("""
UPDATE idempotency_records r
SET state = :state, status = :status, headers = CAST(:headers AS jsonb), body = :body, body_path = :path,
    ended_at = coalesce(r.ended_at, now()), expires_at = coalesce(now() + CAST(:lives AS interval), r.expires_at)
WHERE r.hold_id = :hold AND r.headers IS NULL
""")
)

_TAKE = text("SELECT gateway_take_repeat(:key, :wanted, :number, :any_number, :joinable, :grace)")

# Without a key it is forgotten soon; with one it stays for its time.
_DELIVERED = Direct(
    text("""
UPDATE idempotency_records r
SET delivered_at = now(), ended_at = coalesce(r.ended_at, now()),
    state = CASE WHEN r.state = 'running' THEN 'ended' ELSE r.state END,
    expires_at = CASE WHEN r.idempotency_key IS NULL THEN now() + :lives ELSE r.expires_at END
WHERE r.hold_id = ANY (:ids)
""")
)
