"""Sessions as admins see them: who is signed in, and the word that signs somebody out.

Nothing here could be used as a session. Each verb runs on its caller's connection and writes its audit entries there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.access.admin_tokens import Role
from gateway.access.session_rules import SessionRules
from gateway.db import audit
from gateway.db.paging import Keyset, Page, PageOf
from gateway.db.tables import NOW, admin_sessions, admin_tokens

_ROW = admin_sessions.c
_ORDER = Keyset("sessions", _ROW.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSession:
    """One sign-in of a browser. `subject` is the actor audit entries name, such as `oidc:<subject>`."""

    id: UUID
    subject: str
    name: str
    role: Role
    created_at: datetime
    last_seen_at: datetime
    ended_at: datetime | None


_COLUMNS = [_ROW[name] for name in ListedSession.__dataclass_fields__]


async def page(
    connection: AsyncConnection, rules: SessionRules, subject: str | None, which: PageOf
) -> Page[ListedSession]:
    """One page of the sessions that are alive, of one `subject` or of all."""
    query = _alive(rules)
    if subject is not None:
        query = query.where(_ROW.subject == subject)
    return await _ORDER.read(connection, query, which, _session)


async def end(connection: AsyncConnection, actor: str, rules: SessionRules, session: str) -> ListedSession:
    """The session, over from now on in every process; 404 when it is not alive, unless it was ended: that stays so."""
    session_id = _id_in(session)
    ended = await _end(connection, actor, rules, _ROW.id == session_id)
    if ended:
        return ended[0]
    query = select(*_COLUMNS).where(_ROW.id == session_id, _ROW.ended_at.is_not(None))
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise _unknown()
    return _session(row)


async def end_all(
    connection: AsyncConnection, actor: str, rules: SessionRules, subject: str
) -> list[ListedSession]:
    """Every living session of one person or token, over from now on, newest first; none are an empty list."""
    return await _end(connection, actor, rules, _ROW.subject == subject)


async def _end(
    connection: AsyncConnection, actor: str, rules: SessionRules, which: Any
) -> list[ListedSession]:
    alive = _alive(rules).with_only_columns(_ROW.id).where(which)
    statement = (
        admin_sessions.update()
        .where(_ROW.id.in_(alive), _ROW.ended_at.is_(None))
        .values(ended_at=NOW)
        .returning(*_COLUMNS)
    )
    ended = sorted(
        (_session(row) for row in await connection.execute(statement)), key=lambda one: one.id, reverse=True
    )
    await _record(connection, actor, ended)
    return ended


async def _record(connection: AsyncConnection, actor: str, ended: Sequence[ListedSession]) -> None:
    for one in ended:
        await audit.write(
            connection,
            actor=actor,
            action="session.end",
            subject=("session", str(one.id)),
            detail={"subject": one.subject, "name": one.name, "role": one.role},
        )


def _alive(rules: SessionRules) -> Select[Any]:
    return (
        select(*_COLUMNS)
        .outerjoin(admin_tokens, admin_tokens.c.id == _ROW.token_id)
        .where(rules.alive(), admin_tokens.c.revoked_at.is_(None))
    )


def _id_in(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _unknown() from None


def _unknown() -> errors.GatewayError:
    return errors.not_found("There is no living session with this id.", "session_not_found")


def _session(row: Row[Any]) -> ListedSession:
    return ListedSession(**row._mapping)
