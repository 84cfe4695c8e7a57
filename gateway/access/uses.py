"""What is written when a key or token is used and not worth refusing it for: when it was, and its new signature."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ARRAY, Table, Update, any_, bindparam, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.key_format import Peppers
from gateway.access.signatures import Used, sign_anew
from gateway.clock import Clock
from gateway.db.engine import Database, StatementRefusedError, translated
from gateway.db.tables import NOW
from gateway.errors import GatewayError

log = logging.getLogger("gateway.access.uses")

USE_IS_NOTED_EVERY = timedelta(minutes=1)
LOG_EVERY_SECONDS = 60.0
TOGETHER_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Use:
    """A row that was used by a key's text of these `digests`; `due` when that has not been noted for long."""

    row: Used
    digests: Sequence[bytes]
    due: bool


class Uses:
    """Notes the uses of one table's rows. It waits for no lock; what fails is logged, once a minute."""

    def __init__(self, table: Table, peppers: Peppers, clock: Clock) -> None:
        self._table = table
        self._peppers = peppers
        self._clock = clock
        self._log_again_at = float("-inf")
        self._use = _use(table)

    async def note(
        self, connection: AsyncConnection, used: Used, digests: Sequence[bytes], *, due: bool
    ) -> None:
        """`note_all` of one."""
        await self.note_all(connection, [Use(used, digests, due)])

    async def note_all(self, connection: AsyncConnection, uses: Sequence[Use]) -> None:
        """Writes that the rows were used now, where that is due, and signs anew those that can be."""
        due = [use.row.id for use in uses if use.due]
        try:
            with translated():
                if due:
                    await connection.execute(self._use, {"ids": due})
                for use in uses:
                    if use.row.pepper != self._peppers.names[0]:
                        await sign_anew(connection, self._table, use.row, use.digests, self._peppers)
        except (GatewayError, StatementRefusedError, IntegrityError) as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """A use was not noted because of this."""
        now = self._clock.monotonic()
        if now >= self._log_again_at:
            self._log_again_at = now + LOG_EVERY_SECONDS
            cause = getattr(error.__cause__, "orig", None) or error
            reason = str(cause).partition("\n")[0]
            log.warning(
                "the use of a key cannot be noted", extra={"reason": reason, "detail": self._table.name}
            )


def _use(table: Table) -> Update:
    last = table.c.last_used_at
    free = (
        select(table.c.id)
        .where(
            table.c.id == any_(bindparam("ids", type_=ARRAY(table.c.id.type))),
            or_(last.is_(None), last < NOW - USE_IS_NOTED_EVERY),
        )
        .with_for_update(skip_locked=True)
    )
    return table.update().where(table.c.id.in_(free)).values(last_used_at=NOW)


class LaterUses:
    """Notes uses beside the requests: at once when there was none for a while, else all of a short while together, for
    where there are many keys nearly every request is the first of its key in a minute."""

    def __init__(self, database: Database, uses: Uses) -> None:
        self._database = database
        self._uses = uses
        self._next: list[Use] = []
        self._noting: asyncio.Task[None] | None = None

    def note(self, use: Use) -> None:
        """What has not been written when the process is killed is lost."""
        self._next.append(use)
        if self._noting is None:
            self._noting = asyncio.create_task(self._note(), context=Context())

    async def noted(self) -> None:
        """Returns when everything is written, or cannot be."""
        while self._noting is not None:
            await asyncio.wait({self._noting})

    async def _note(self) -> None:
        try:
            while self._next:
                now, self._next = self._next, []
                try:
                    async with self._database.autocommit() as connection:
                        await self._uses.note_all(connection, now)
                except GatewayError as error:
                    self._uses.failed(error)
                await asyncio.sleep(TOGETHER_SECONDS)
        finally:
            self._noting = None
