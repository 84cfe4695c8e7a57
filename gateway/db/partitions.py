"""The months of the partitioned tables, made ahead of time by whichever process comes first."""

from __future__ import annotations

import logging

from sqlalchemy import exc, text

from gateway.db.engine import Database, StatementRefusedError

log = logging.getLogger("gateway.partitions")

MONTHS_AHEAD = 3


async def ensure_partitions(database: Database) -> None:
    """Makes the partitions of this month and the next two that are missing.

    One process at a time; where another is at it this one does nothing. A login that may not create tables, or rows
    that already lie in the default partition, are logged: nothing is lost, rows go on into the default partition.
    """
    try:
        async with database.autocommit() as connection:
            made = await connection.scalar(_ENSURE, {"months": MONTHS_AHEAD})
    except (StatementRefusedError, exc.IntegrityError) as error:
        log.error("partitions of the coming months were not made", extra={"reason": str(error)[:200]})
        return
    if made:
        log.info("partitions made", extra={"detail": str(made)})


_ENSURE = text("""
SELECT CASE WHEN pg_try_advisory_xact_lock(hashtextextended('gateway partitions', 0))
       THEN gateway_ensure_partitions(current_date, :months) END
""")
