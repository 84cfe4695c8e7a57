"""The table of alerts: which of several processes raised one is decided here, by its unique index over open ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.alerts.facts import Finding, Kind, OpenAlert, Severity, State
from gateway.db.paging import Keyset, Page, PageOf
from gateway.db.tables import NOW, alerts
from gateway.ids import uuid7

_ORDER = Keyset("alerts", alerts.c.id)
_COLUMNS = [column for column in alerts.c if column.name not in ("mark", "seen_at")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert as people see it."""

    id: UUID
    kind: Kind
    severity: Severity
    subject: str
    summary: str
    detail: dict[str, Any]
    raised_at: datetime
    resolved_at: datetime | None

    @property
    def state(self) -> State:
        return "open" if self.resolved_at is None else "resolved"


async def open_now(connection: AsyncConnection) -> list[OpenAlert]:
    """Every open alert, as the rules compare them."""
    table = alerts.c
    query = select(
        table.id,
        table.kind,
        table.subject,
        table.mark,
        table.seen_at,
        table.detail["limit"].astext.label("limit"),
        table.detail["enforce"].as_boolean().label("enforce"),
    ).where(table.resolved_at.is_(None))
    return [OpenAlert(**row._mapping) for row in await connection.execute(query)]


async def note(connection: AsyncConnection, found: Sequence[Finding]) -> list[Alert]:
    """Raises what is not open and says again what is, in the caller's transaction; the alerts that are new."""
    if not found:
        return []
    items = [
        {
            "id": str(uuid7()),
            "kind": one.kind,
            "severity": one.severity,
            "subject": one.subject,
            "mark": one.mark,
            "summary": one.summary,
            "detail": dict(one.detail),
        }
        for one in found
    ]
    rows = await connection.execute(_NOTE, {"items": msgspec.json.encode(items).decode()})
    return [_alert(row) for row in rows if row.made]


async def seen(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Notes that the reasons of these alerts are still there; their words stay."""
    if ids:
        await connection.execute(alerts.update().where(alerts.c.id.in_(ids)).values(seen_at=NOW))


async def resolve(connection: AsyncConnection, ids: Sequence[UUID]) -> list[Alert]:
    """Ends these alerts, in the caller's transaction; those that were open until now."""
    if not ids:
        return []
    statement = (
        alerts.update().where(alerts.c.id.in_(ids), alerts.c.resolved_at.is_(None)).values(resolved_at=NOW)
    )
    return [_alert(row) for row in await connection.execute(statement.returning(*_COLUMNS))]


async def page(connection: AsyncConnection, state: State | None, which: PageOf) -> Page[Alert]:
    """One page of the open, the resolved, or all alerts, newest first."""
    query = select(*_COLUMNS)
    if state is not None:
        resolved = alerts.c.resolved_at
        query = query.where(resolved.is_(None) if state == "open" else resolved.is_not(None))
    return await _ORDER.read(connection, query, which, _alert)


async def by_ids(connection: AsyncConnection, alert_ids: Collection[UUID]) -> dict[UUID, Alert]:
    """Those of these alerts that there are."""
    rows = await connection.execute(select(*_COLUMNS).where(alerts.c.id.in_(alert_ids)))
    return {row.id: _alert(row) for row in rows}


async def counts(connection: AsyncConnection) -> dict[tuple[str, str], int]:
    """How many are open, by kind and severity."""
    table = alerts.c
    query = (
        select(table.kind, table.severity, func.count().label("number"))
        .where(table.resolved_at.is_(None))
        .group_by(table.kind, table.severity)
    )
    return {(row.kind, row.severity): row.number for row in await connection.execute(query)}


async def forget(connection: AsyncConnection, days: int) -> int:
    """Deletes alerts that were resolved longer ago, their deliveries with them."""
    old = alerts.c.resolved_at < func.now() - timedelta(days=days)
    return (await connection.execute(alerts.delete().where(old))).rowcount


def _alert(row: Row[Any]) -> Alert:
    return Alert(**{column.name: row._mapping[column.name] for column in _COLUMNS})


# xmax is 0 in a row that was inserted, not in one that was there.
_NOTE = text("""
INSERT INTO alerts AS a (id, kind, severity, subject, mark, summary, detail)
SELECT i.id, i.kind, i.severity, i.subject, i.mark, i.summary, i.detail
FROM jsonb_to_recordset(CAST(:items AS jsonb))
     AS i(id uuid, kind text, severity text, subject text, mark text, summary text, detail jsonb)
ORDER BY i.kind, i.subject, i.mark
ON CONFLICT (kind, subject, mark) WHERE resolved_at IS NULL
DO UPDATE SET seen_at = now(), summary = excluded.summary, detail = excluded.detail
RETURNING a.id, a.kind, a.severity, a.subject, a.summary, a.detail, a.raised_at, a.resolved_at, a.xmax = 0 AS made
""")
