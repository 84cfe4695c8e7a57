"""What is written when a key or token is used and not worth refusing it for: when it was, and its new signature."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ARRAY, Table, any_, bindparam, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.key_format import Peppers
from gateway.access.signatures import Used, sign_anew
from gateway.clock import Clock
from gateway.db.engine import StatementRefusedError, translated
from gateway.db.tables import NOW
from gateway.errors import GatewayError

log = logging.getLogger("gateway.access.uses")

USE_IS_NOTED_EVERY = timedelta(minutes=1)
LOG_EVERY_SECONDS = 60.0


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
                    await self._use(connection, due)
                for use in uses:
                    if use.row.pepper != self._peppers.names[0]:
                        await sign_anew(connection, self._table, use.row, use.digests, self._peppers)
        except (GatewayError, StatementRefusedError, IntegrityError) as error:
            self._failed(error)

    async def _use(self, connection: AsyncConnection, ids: Sequence[str | UUID]) -> None:
        table, last = self._table, self._table.c.last_used_at
        free = (
            select(table.c.id)
            .where(
                table.c.id == any_(bindparam("ids", ids, ARRAY(table.c.id.type))),
                or_(last.is_(None), last < NOW - USE_IS_NOTED_EVERY),
            )
            .with_for_update(skip_locked=True)
        )
        await connection.execute(table.update().where(table.c.id.in_(free)).values(last_used_at=NOW))

    def _failed(self, error: Exception) -> None:
        now = self._clock.monotonic()
        if now >= self._log_again_at:
            self._log_again_at = now + LOG_EVERY_SECONDS
            cause = getattr(error.__cause__, "orig", None) or error
            reason = str(cause).partition("\n")[0]
            log.warning(
                "the use of a key cannot be noted", extra={"reason": reason, "detail": self._table.name}
            )
