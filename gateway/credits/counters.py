"""Counters: what a quota's running period has settled and holds, opened and closed.

They are opened and closed alone: under the team's exclusive lock no call can be placed, and with the team's open holds
locked as well none can end meanwhile. Every change of a counter is an entry, also its beginning and its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.tables import teams


@dataclass(frozen=True, slots=True)
class Fresh:
    """A key's quota whose counter is opened anew."""

    quota_id: UUID
    key_id: str


async def lock(connection: AsyncConnection, team_id: UUID) -> None:
    """Until this transaction ends no call of the team is placed or ended, and no quota of it changes elsewhere."""
    await connection.execute(_LOCK_TEAM, {"team": team_id})
    # Whoever changes the team itself holds its row, not the ledger's lock.
    await connection.execute(select(teams.c.id).where(teams.c.id == team_id).with_for_update(key_share=True))
    await connection.execute(_LOCK_HOLDS, {"team": team_id})


async def open_missing(connection: AsyncConnection, team_id: UUID, fresh: Sequence[Fresh] = ()) -> None:
    """Opens the counters that quotas of the team lack now; the caller holds the lock.

    A counter starts with what its period has spent and holds, that of a key also with what the keys have in it that
    the key has replaced: a rotation is no way to a fresh allowance. `fresh` were opened meanwhile, without that.
    """
    new = await _keys_without_counter(connection, team_id)
    await connection.execute(_OPEN, {"team": team_id})
    for one in dict.fromkeys([*fresh, *new]):
        values = {"quota": one.quota_id, "team": team_id, "key": one.key_id}
        await connection.execute(_CARRY_REPLACED, values)


async def close(connection: AsyncConnection, team_id: UUID, quota_id: UUID, why: str) -> None:
    """Removes every counter of a quota; the caller holds the lock.

    An entry takes out what a counter still has, so that its entries sum to nothing. Open holds come off it; ended ones
    keep its number as a trace.
    """
    await connection.execute(_CLOSE, {"quota": quota_id, "team": team_id, "why": why})


async def close_running(connection: AsyncConnection, team_id: UUID) -> list[Fresh]:
    """Closes the counters that run, before the team's time zone changes; the caller holds the lock.

    Should the old zone come back, they would lack what was spent since. The change opens new ones; which of them are of
    keys is answered for `open_missing`.
    """
    for quota_id in (await connection.execute(_RUNNING, {"team": team_id})).scalars().all():
        why = "the team's time zone was changed"
        await connection.execute(_CLOSE_RUNNING, {"quota": quota_id, "team": team_id, "why": why})
    return await _keys_without_counter(connection, team_id)


async def _keys_without_counter(connection: AsyncConnection, team_id: UUID) -> list[Fresh]:
    rows = await connection.execute(_KEY_QUOTAS_WITHOUT_COUNTER, {"team": team_id})
    return [Fresh(row.id, row.key_id) for row in rows]


_LOCK_TEAM = text("SELECT gateway_lock_team(CAST(:team AS uuid), true)")
_LOCK_HOLDS = text(
    """
    SELECT count(*) FROM (
        SELECT FROM holds WHERE team_id = :team AND state IN ('held', 'unknown') ORDER BY id FOR NO KEY UPDATE
    ) locked
    """
)
_OPEN = text("SELECT gateway_open_counters(CAST(:team AS uuid))")
_KEY_QUOTAS_WITHOUT_COUNTER = text(
    """
    SELECT q.id, q.key_id FROM quotas q
    WHERE q.team_id = :team AND q.key_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM quota_periods c WHERE c.quota_id = q.id AND c.starts_at <= now()
                      AND (c.ends_at IS NULL OR c.ends_at > now()))
    ORDER BY q.id
    """
)
_RUNNING = text(
    """
    SELECT DISTINCT q.id FROM quotas q JOIN quota_periods c ON c.quota_id = q.id
    WHERE q.team_id = :team AND c.ends_at > now() ORDER BY q.id
    """
)

_CLOSING = """
    WITH closed AS (
        SELECT id, settled, held FROM quota_periods WHERE quota_id = :quota{running} ORDER BY id FOR UPDATE
    ), taken_off AS (
        UPDATE holds SET counters = ARRAY(SELECT c FROM unnest(counters) c WHERE c NOT IN (SELECT id FROM closed))
        WHERE team_id = :team AND state IN ('held', 'unknown') AND counters && ARRAY(SELECT id FROM closed)
    ), emptied AS (
        INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, reason)
        SELECT gateway_uuid7(), 'adjust', :team, q.key_id, ARRAY[closed.id], -closed.held, -closed.settled, :why
        FROM closed JOIN quotas q ON q.id = :quota
        WHERE closed.held <> 0 OR closed.settled <> 0
    )
    DELETE FROM quota_periods WHERE id IN (SELECT id FROM closed)
"""
_CLOSE = text(_CLOSING.format(running=""))
_CLOSE_RUNNING = text(_CLOSING.format(running=" AND ends_at > now()"))

_CARRY_REPLACED = text(
    """
    WITH RECURSIVE replaced AS (
        SELECT id FROM team_keys WHERE replaced_by = :key
        UNION SELECT k.id FROM team_keys k JOIN replaced ON k.replaced_by = replaced.id
    ), counter AS (
        SELECT c.id, c.starts_at FROM quota_periods c
        WHERE c.quota_id = :quota AND c.starts_at <= now() AND (c.ends_at IS NULL OR c.ends_at > now())
        ORDER BY c.starts_at DESC LIMIT 1
    ), put_on AS (
        UPDATE holds h SET counters = h.counters || counter.id FROM counter
        WHERE h.team_id = :team AND h.key_id IN (SELECT id FROM replaced) AND h.state IN ('held', 'unknown')
          AND h.placed_at >= counter.starts_at
        RETURNING h.quote
    ), carried AS (
        SELECT counter.id, (SELECT coalesce(sum(quote), 0) FROM put_on)::bigint AS held, (
            SELECT coalesce(sum(u.credits), 0) FROM usage_buckets u
            WHERE u.team_id = :team AND u.key_id IN (SELECT id FROM replaced) AND u.starts_at >= counter.starts_at
        )::bigint AS settled
        FROM counter
    ), counted AS (
        UPDATE quota_periods c SET settled = c.settled + carried.settled, held = c.held + carried.held
        FROM carried WHERE c.id = carried.id
    )
    INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, reason)
    SELECT gateway_uuid7(), 'carry', :team, :key, ARRAY[carried.id], carried.held, carried.settled,
           'what the replaced keys have in this period'
    FROM carried WHERE carried.held <> 0 OR carried.settled <> 0
    """
)
