"""Sessions of signed-in people: rows in Postgres, so that ending one ends it everywhere, at once."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.admin_tokens import AdminPrincipal, Role
from gateway.access.session_rules import SessionRules
from gateway.db import audit
from gateway.db.engine import Database
from gateway.db.tables import NOW, admin_sessions, admin_tokens
from gateway.ids import uuid7

SEEN_IS_NOTED_EVERY = timedelta(minutes=1)
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits
_ROW = admin_sessions.c


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is alive. `actor` is the one audit entries name; nothing here could be used as the session."""

    id: UUID
    actor: str
    role: Role
    name: str
    created_at: datetime

    @property
    def principal(self) -> AdminPrincipal:
        return AdminPrincipal(self.actor, self.role, self.name)


class AdminSessions:
    """Begins, finds and ends the sessions of browsers; `rules` say which are alive."""

    def __init__(self, database: Database, rules: SessionRules) -> None:
        self._database = database
        self._rules = rules

    async def begin(self, who: AdminPrincipal, *, replaces: str | None = None) -> str:
        """A new session for who has just signed in: the cookie's value, which is stored nowhere.

        The session that the same browser had before, `replaces`, is over.
        """
        value = secrets.token_urlsafe(32)
        row = {
            "digest": _digest(value),
            "id": uuid7(),
            "subject": who.actor,
            "role": who.role,
            "name": who.name,
            **self._rules.stands_on(who),
        }
        async with self._database.transaction() as connection:
            if replaces is not None:
                await self._end(connection, replaces)
            await connection.execute(admin_sessions.insert().values(**row))
            await audit.write(
                connection,
                actor=who.actor,
                action="session.sign-in",
                subject=("session", str(row["id"])),
                detail={"name": who.name, "role": who.role},
            )
        return value

    async def find(self, value: str, *, seen: bool = True) -> Session | None:
        """The living session behind a cookie's value, None when there is none; notes that it was `seen`."""
        if not _VALUE.fullmatch(value):
            return None
        query = (
            select(_ROW.id, _ROW.subject, _ROW.role, _ROW.name, _ROW.created_at)
            .outerjoin(admin_tokens, admin_tokens.c.id == _ROW.token_id)
            .where(_ROW.digest == _digest(value), self._rules.alive(), admin_tokens.c.revoked_at.is_(None))
        )
        # A seldom noted request must not let a short idle time run out.
        noted_every = min(SEEN_IS_NOTED_EVERY, timedelta(seconds=self._rules.idle / 4))
        note = (
            admin_sessions.update()
            .where(_ROW.digest == _digest(value), self._rules.alive(), _ROW.last_seen_at < NOW - noted_every)
            .values(last_seen_at=NOW)
        )
        async with self._database.autocommit() as connection:
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            if seen:
                await connection.execute(note)
        return Session(row.id, row.subject, row.role, row.name, row.created_at)

    async def end(self, value: str) -> bool:
        """Signs out; False when this was no living session."""
        if not _VALUE.fullmatch(value):
            return False
        async with self._database.transaction() as connection:
            return await self._end(connection, value)

    async def clear(self) -> None:
        """Deletes the rows of sessions that are over."""
        async with self._database.autocommit() as connection:
            await connection.execute(admin_sessions.delete().where(~self._rules.in_time()))

    async def _end(self, connection: AsyncConnection, value: str) -> bool:
        statement = (
            admin_sessions.update()
            .where(_ROW.digest == _digest(value), self._rules.alive())
            .values(ended_at=NOW)
            .returning(_ROW.id, _ROW.subject)
        )
        row = (await connection.execute(statement)).one_or_none()
        if row is None:
            return False
        subject = ("session", str(row.id))
        await audit.write(connection, actor=row.subject, action="session.sign-out", subject=subject)
        return True


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
