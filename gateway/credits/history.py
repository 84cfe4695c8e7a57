"""What the ledger remembers of a hold: its entries, and the quotas it counts on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.credits.quotas import Period
from gateway.db.tables import holds, ledger_entries, quota_periods, quotas


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry: what it added to `held` and `settled` of the hold's counters, in micro-credits."""

    hold_id: UUID
    kind: str
    held: int
    settled: int
    actor: str | None
    reason: str | None
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedOn:
    """A quota a hold counts on, as it is now, with the period the hold fell into; amounts in micro-credits."""

    hold_id: UUID
    on_key: bool
    period: Period
    enforce: bool
    limit: int
    settled: int
    held: int
    starts_at: datetime
    ends_at: datetime | None
    updated_at: datetime


async def entries_of(connection: AsyncConnection, hold_ids: Collection[UUID]) -> dict[UUID, list[Entry]]:
    """The entries of these holds in the order they were made; none of what only moves counters."""
    names = Entry.__dataclass_fields__
    query = (
        select(*(ledger_entries.c[name] for name in names))
        .where(ledger_entries.c.hold_id.in_(hold_ids))
        .order_by(ledger_entries.c.made_at)
    )
    found: dict[UUID, list[Entry]] = {}
    for row in await connection.execute(query):
        found.setdefault(row.hold_id, []).append(Entry(**row._mapping))
    return found


async def counted_on(connection: AsyncConnection, hold_ids: Collection[UUID]) -> dict[UUID, list[CountedOn]]:
    """The quotas these holds count on; those that were removed since are left out."""
    counter = (
        select(holds.c.id.label("hold_id"), func.unnest(holds.c.counters).label("counter"))
        .where(holds.c.id.in_(hold_ids))
        .subquery()
    )
    query = (
        select(
            counter.c.hold_id,
            quotas.c.key_id.is_not(None).label("on_key"),
            quotas.c.period,
            quotas.c.enforce,
            quotas.c.limit_micro.label("limit"),
            quota_periods.c.settled,
            quota_periods.c.held,
            quota_periods.c.starts_at,
            quota_periods.c.ends_at,
            quotas.c.updated_at,
        )
        .join_from(counter, quota_periods, quota_periods.c.id == counter.c.counter)
        .join(quotas, quotas.c.id == quota_periods.c.quota_id)
        .order_by(counter.c.hold_id, quota_periods.c.id)
    )
    found: dict[UUID, list[CountedOn]] = {}
    for row in await connection.execute(query):
        found.setdefault(row.hold_id, []).append(CountedOn(**row._mapping))
    return found
