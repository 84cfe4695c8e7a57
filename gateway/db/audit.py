"""Who changed what: written by whoever makes the change, on the connection that makes it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.tables import audit_entries
from gateway.ids import uuid7


async def write(
    connection: AsyncConnection,
    *,
    actor: str,
    action: str,
    subject: tuple[str, str],
    team_id: UUID | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """One entry in the caller's transaction: both land or neither.

    `actor` is `admin-token:<id>`, `bootstrap`, `oidc:<subject>`, `cli:<login>`, `gateway` or `anonymous`; `action` is
    noun.verb, e.g. `key.revoke`; `subject` is (type, id); `detail` holds the changed fields, never a secret.
    """
    await connection.execute(
        audit_entries.insert().values(
            id=uuid7(),
            actor=actor,
            action=action,
            subject_type=subject[0],
            subject_id=subject[1],
            team_id=team_id,
            detail=detail or {},
        )
    )
