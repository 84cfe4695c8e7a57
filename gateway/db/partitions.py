"""The months of the partitioned tables, made ahead of time by whichever process comes first.

A partition is made as a table of its own and then attached, each in a transaction of its own. Attaching locks the
default partition for a moment; a `lock_timeout` below the ledger's own lets paid calls pass first, and it is tried
again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from datetime import date
from random import uniform

from sqlalchemy import Connection, exc, text

from gateway.db.engine import LOCK_NOT_AVAILABLE, Database, LockedError, StatementRefusedError, allow

log = logging.getLogger("gateway.partitions")

MONTHS = 4  # this one and the next three
LOCK_MILLISECONDS = 50
TRIES = 40
PAUSE_SECONDS = 0.5  # between tries, half of it at least
MOST_MOVED = 10_000  # rows of a month in a default partition that are moved without being asked
STATEMENT_SECONDS = 60
NOT_MADE = "partitions of the coming months were not made"


async def ensure_partitions(database: Database, today: date | None = None) -> list[str]:
    """Makes the partitions of this month and the next three that are missing, and those of earlier months with rows in
    a default partition; answers their names. `today` is the database's day (UTC) unless a test says otherwise.

    One process at a time; what another has made meanwhile is left alone. Where it cannot be done (the login may not
    create tables, too many rows lie in a default partition, the lock was not to be had) that is logged: nothing is
    lost, rows go on into the default partition. Raises GatewayError 503 when Postgres cannot be asked.
    """
    made: list[str] = []
    try:
        async with database.transaction() as connection:
            await allow(connection, STATEMENT_SECONDS)
            missing = (await connection.execute(_MISSING, {"today": today, "months": MONTHS})).all()
        for row in missing:
            if await _make(database, row.parent, row.month):
                made.append(f"{row.parent}_{row.month:%Y_%m}")  # noqa: PERF401 - what was made is told, come what may
    except (StatementRefusedError, exc.IntegrityError, LockedError) as error:
        reason = "locked" if isinstance(error, LockedError) else str(error)
        log.error(NOT_MADE, extra={"reason": reason[:200]})
    if made:
        log.info("partitions made", extra={"detail": ", ".join(made)})
    return made


async def _make(database: Database, parent: str, month: date) -> bool:
    """Whether it was made; raises LockedError when it could not be attached in many tries."""
    values = {"parent": parent, "month": month, "most": MOST_MOVED}
    for pause in _pauses():
        try:
            async with database.transaction() as connection:
                await connection.execute(_LOCK_TIMEOUT)
                await connection.execute(_IN_TURN)
                await connection.execute(_PREPARE, values)
            async with database.transaction() as connection:
                await allow(connection, STATEMENT_SECONDS)
                await connection.execute(_LOCK_TIMEOUT)
                await connection.execute(_IN_TURN)
                return bool(await connection.scalar(_ATTACH, values))
        except LockedError:
            await asyncio.sleep(pause)
    raise LockedError


def ensure_after_migration(connection: Connection, today: date | None = None) -> list[str]:
    """The same for `db upgrade`, however many rows have to move, in transactions of its own on this connection.

    Raises SQLAlchemy's DBAPIError when it cannot be done.
    """
    found = connection.execute(_MISSING, {"today": today, "months": MONTHS}).all()
    connection.commit()
    made = []
    for row in found:
        values = {"parent": row.parent, "month": row.month, "most": None}
        for pause in _pauses():
            try:
                connection.execute(_LOCK_TIMEOUT)
                connection.execute(_IN_TURN)
                if connection.scalar(_ATTACH, values):
                    made.append(f"{row.parent}_{row.month:%Y_%m}")
                connection.commit()
                break
            except exc.OperationalError as error:
                connection.rollback()
                if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE or pause is LAST:
                    raise
                time.sleep(pause)
    return made


LAST = 0.0


def _pauses() -> Iterator[float]:
    """Seconds to wait after each try that found a lock taken."""
    for _ in range(TRIES - 1):
        yield PAUSE_SECONDS * uniform(0.5, 1)  # noqa: S311 - so that processes do not meet again
    yield LAST


_MISSING = text("""
SELECT * FROM gateway_missing_partitions(coalesce(CAST(:today AS date), (now() AT TIME ZONE 'UTC')::date), :months)
""")
_LOCK_TIMEOUT = text(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'")
_IN_TURN = text("SELECT pg_advisory_xact_lock(hashtextextended('gateway partitions', 0))")
_PREPARE = text("SELECT gateway_prepare_partition(:parent, :month)")
_ATTACH = text("SELECT gateway_attach_partition(:parent, :month, CAST(:most AS bigint))")
