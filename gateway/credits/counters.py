"""Counters: what a quota's running period has settled and holds, opened and closed.

They are opened and closed alone: under the team's exclusive lock no call can be placed, and with the team's open holds
locked as well none can end meanwhile. Every change of a counter is an entry, also its beginning and its end.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.tables import teams


async def lock(connection: AsyncConnection, team_id: UUID) -> None:
    """Until this transaction ends no call of the team is placed or ended, and no quota of it changes elsewhere."""
    await connection.execute(_LOCK_TEAM, {"team": team_id})
    # Whoever changes the team itself holds its row, not the ledger's lock.
    await connection.execute(select(teams.c.id).where(teams.c.id == team_id).with_for_update(key_share=True))
    await connection.execute(_LOCK_HOLDS, {"team": team_id})


async def open_missing(connection: AsyncConnection, team_id: UUID) -> None:
    """Opens the counters that quotas of the team lack now; the caller holds the lock.

    A counter starts with what its period has spent and holds.
    """
    await connection.execute(_OPEN, {"team": team_id})


async def close(connection: AsyncConnection, team_id: UUID, quota_id: UUID, why: str) -> None:
    """Removes every counter of a quota; the caller holds the lock.

    An entry takes out what a counter still has, so that its entries sum to nothing. Open holds come off it; ended ones
    keep its number as a trace.
    """
    await connection.execute(_CLOSE, {"quota": quota_id, "team": team_id, "why": why})


async def close_dated(connection: AsyncConnection, team_id: UUID) -> None:
    """Closes the counters of all the team's days, weeks and months, before its time zone changes; the caller holds
    the lock.

    Those of the past too: the new zone's periods are others, and a clock may step back into them.
    """
    await connection.execute(_CLOSE_DATED, {"team": team_id, "why": "the team's time zone was changed"})


_LOCK_TEAM = text("SELECT gateway_lock_team(CAST(:team AS uuid), true)")
_LOCK_HOLDS = text(
    """
    SELECT count(*) FROM (
        SELECT FROM holds WHERE team_id = :team AND state IN ('held', 'unknown') ORDER BY id FOR NO KEY UPDATE
    ) locked
    """
)
_OPEN = text("SELECT gateway_open_counters(CAST(:team AS uuid))")
_CLOSING = """
    WITH closed AS (
        SELECT c.id, c.settled, c.held, q.key_id FROM quota_periods c JOIN quotas q ON q.id = c.quota_id
        WHERE q.team_id = :team AND {those} ORDER BY c.id FOR UPDATE OF c
    ), taken_off AS (
        UPDATE holds SET counters = ARRAY(SELECT c FROM unnest(counters) c WHERE c NOT IN (SELECT id FROM closed))
        WHERE team_id = :team AND state IN ('held', 'unknown') AND counters && ARRAY(SELECT id FROM closed)
    ), emptied AS (
        INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, reason)
        SELECT gateway_uuid7(), 'adjust', :team, key_id, ARRAY[id], -held, -settled, :why
        FROM closed WHERE held <> 0 OR settled <> 0
    )
    DELETE FROM quota_periods WHERE id IN (SELECT id FROM closed)
"""
_CLOSE = text(_CLOSING.format(those="q.id = :quota"))
_CLOSE_DATED = text(_CLOSING.format(those="c.ends_at IS NOT NULL"))
