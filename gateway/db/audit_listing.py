"""The audit trail, read: who changed what, newest first."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
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
    actor: str | None = None
    action: str | None = None
    team_id: UUID | None = None


async def page(connection: AsyncConnection, narrow: AuditFilter, which: PageOf) -> Page[AuditEntry]:
    """One page of the entries the filter lets through."""
    query = select(audit_entries)
    for field in fields(narrow):
        wanted = getattr(narrow, field.name)
        if wanted is not None:
            query = query.where(audit_entries.c[field.name] == wanted)
    return await _ORDER.read(connection, query, which, _entry)


async def of_subjects(
    connection: AsyncConnection, subject_type: str, subject_ids: Collection[str]
) -> list[AuditEntry]:
    """Every entry of these subjects, oldest first."""
    query = select(audit_entries).where(
        audit_entries.c.subject_type == subject_type, audit_entries.c.subject_id.in_(subject_ids)
    )
    return [_entry(row) for row in await connection.execute(query.order_by(audit_entries.c.id))]


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(**row._mapping)
