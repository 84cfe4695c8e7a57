"""The audit trail, read: who changed what, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.paging import Keyset, Page, PageOf
from gateway.db.tables import audit_entries

_ORDER = Keyset("audit", audit_entries.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change: by whom, of what (`subject_type` and `subject_id`), and the fields it touched."""

    id: UUID
    actor: str
    action: str
    subject_type: str
    subject_id: str
    team_id: UUID | None
    detail: Mapping[str, Any]
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries; None does not narrow."""

    subject_type: str | None = None
    subject_id: str | None = None
    team_id: UUID | None = None


async def page(connection: AsyncConnection, narrow: AuditFilter, which: PageOf) -> Page[AuditEntry]:
    """One page of the entries the filter lets through."""
    query = select(audit_entries)
    if narrow.subject_type is not None:
        query = query.where(audit_entries.c.subject_type == narrow.subject_type)
    if narrow.subject_id is not None:
        query = query.where(audit_entries.c.subject_id == narrow.subject_id)
    if narrow.team_id is not None:
        query = query.where(audit_entries.c.team_id == narrow.team_id)
    return await _ORDER.read(connection, query, which, _entry)


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(**row._mapping)
