"""The life of a hold: placed before a paid call, ended once after it.

Verbs are one transaction each and compare-and-set on the hold's state, so a poll, another process and a repeated
verb conclude a hold once: the first wins, the others change nothing. No connection is held between verbs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, literal
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.engine import Database
from gateway.db.tables import attempts, holds, tasks
from gateway.errors import GatewayError
from gateway.ids import uuid7

log = logging.getLogger("gateway.ledger")

WAIT_SECONDS = 5.0
REPEAT_SECONDS = 0.5
OPEN = ("held", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a hold is placed for; `quote` in micro-credits is the most the call is expected to cost."""

    team_id: UUID
    key_id: str
    request_id: str
    operation: str
    model: str
    quote: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SentVia:
    """One send of the call, kept with its hold."""

    upstream_key_id: UUID
    outcome: str
    status: int | None
    milliseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """The task Pixapi accepted the call as; `body` is its first state in task shape."""

    id: str
    upstream_key_id: UUID
    status: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """How a hold ends: `state` settled (with micro-credits), released or unknown."""

    state: str
    settled: int | None = None
    estimated: bool = False
    flags: tuple[str, ...] = ()
    reason: str | None = None


class Ledger:
    """Places and ends holds. Every verb raises GatewayError 503 when Postgres cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unwritten: set[asyncio.Task[None]] = set()
        self._unbound: set[str] = set()

    async def place(self, order: Order) -> UUID:
        """A new hold; its id."""
        hold_id = uuid7()
        async with self._database.autocommit() as connection:
            await connection.execute(
                holds.insert().values(
                    id=hold_id,
                    team_id=order.team_id,
                    key_id=order.key_id,
                    request_id=order.request_id,
                    operation=order.operation,
                    model=order.model,
                    quote=order.quote,
                )
            )
        return hold_id

    async def bind(self, hold_id: UUID, order: Order, task: NewTask, sent: Sequence[SentVia]) -> None:
        """Records the accepted task with its owner; the hold stays open until the task ends."""
        async with self._database.transaction() as connection:
            await connection.execute(
                insert(tasks)
                .values(
                    id=task.id,
                    team_id=order.team_id,
                    key_id=order.key_id,
                    hold_id=hold_id,
                    upstream_key_id=task.upstream_key_id,
                    model=order.model,
                    operation=order.operation,
                    status=task.status,
                    body=task.body,
                )
                .on_conflict_do_nothing()
            )
            await connection.execute(
                holds.update()
                .where(holds.c.id == hold_id)
                .values(task_id=task.id, upstream_key_id=task.upstream_key_id)
            )
            await _record(connection, hold_id, sent)

    async def end(self, hold_id: UUID, conclusion: Conclusion, sent: Sequence[SentVia] = ()) -> bool:
        """Ends a hold, or marks it unknown; False when it had ended before."""
        async with self._database.transaction() as connection:
            changed = await conclude(connection, hold_id, conclusion)
            await _record(connection, hold_id, sent)
        return changed

    async def end_surely(self, hold_id: UUID, conclusion: Conclusion, sent: Sequence[SentVia] = ()) -> None:
        """`end` for a call that has been sent: the caller goes on after at most five seconds, the verb is repeated
        until Postgres has it."""

        async def verb() -> None:
            await self.end(hold_id, conclusion, sent)

        await self._surely(verb)

    async def bind_surely(self, hold_id: UUID, order: Order, task: NewTask, sent: Sequence[SentVia]) -> None:
        """`bind`, likewise; until it is written `is_unbound` says so of the task."""

        async def verb() -> None:
            await self.bind(hold_id, order, task, sent)
            self._unbound.discard(task.id)

        self._unbound.add(task.id)
        await self._surely(verb)

    def is_unbound(self, task_id: str) -> bool:
        """Whether this process knows the task but could not write it down yet."""
        return task_id in self._unbound

    async def close(self, seconds: float = 5.0) -> None:
        """Gives verbs that are still being repeated a last chance."""
        if self._unwritten:
            await asyncio.wait(self._unwritten, timeout=seconds)
        for task in self._unwritten:
            task.cancel()

    async def _surely(self, verb: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(_repeat(verb))
        self._unwritten.add(task)
        task.add_done_callback(self._unwritten.discard)
        await asyncio.wait({task}, timeout=WAIT_SECONDS)


async def _repeat(verb: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await verb()
        except GatewayError as error:
            log.warning("a hold's end is not written down yet", extra={"reason": error.reason})
            await asyncio.sleep(REPEAT_SECONDS)


async def conclude(connection: AsyncConnection, hold_id: UUID, conclusion: Conclusion) -> bool:
    """Ends a hold in the caller's transaction; False when it had ended before."""
    ends = conclusion.state != "unknown"
    result = await connection.execute(
        holds.update()
        .where(holds.c.id == hold_id, holds.c.state.in_(OPEN if ends else ("held",)))
        .values(
            state=conclusion.state,
            settled=conclusion.settled,
            estimated=conclusion.estimated,
            flags=func.array_cat(holds.c.flags, literal(list(conclusion.flags), holds.c.flags.type)),
            reason=conclusion.reason,
            ended_at=func.now() if ends else None,
        )
    )
    return result.rowcount == 1


async def _record(connection: AsyncConnection, hold_id: UUID, sent: Sequence[SentVia]) -> None:
    if not sent:
        return
    rows = [
        {
            "hold_id": hold_id,
            "number": number,
            "upstream_key_id": one.upstream_key_id,
            "outcome": one.outcome,
            "status": one.status,
            "milliseconds": one.milliseconds,
        }
        for number, one in enumerate(sent, start=1)
    ]
    await connection.execute(insert(attempts).on_conflict_do_nothing(), rows)
    await connection.execute(
        holds.update().where(holds.c.id == hold_id).values(upstream_key_id=sent[-1].upstream_key_id)
    )
