"""Sessions of people who signed in with a team key: rows in Postgres, so that ending one ends it everywhere, at once.

They only read, and what they read is the team's own: a sign-in is written into the audit no more than a call with the
key is. That the key was used shows in its `last_used_at`, and refused sign-ins are in the audit (`sign_in_attempts`).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.principal import Principal
from gateway.access.principal_rows import PRINCIPAL, principal_of, works
from gateway.db.engine import Database
from gateway.db.tables import NOW, team_keys, team_sessions, teams
from gateway.ids import uuid7

SEEN_IS_NOTED_EVERY = timedelta(minutes=1)
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits
_ROW = team_sessions.c


class TeamSessions:
    """Begins, finds and ends sessions; times in seconds.

    A session ends by itself after `idle` without a request and `absolute` in any case. It ends with its key: at the
    first request after that was revoked, has expired, or its team was suspended.
    """

    def __init__(self, database: Database, *, idle: float, absolute: float) -> None:
        self._database = database
        self._idle, self._absolute = timedelta(seconds=idle), timedelta(seconds=absolute)

    async def begin(self, key_id: str, *, replaces: str | None = None) -> str:
        """A new session for who has just shown this key: the cookie's value, which is stored nowhere.

        The session that the same browser had before, `replaces`, is over.
        """
        value = secrets.token_urlsafe(32)
        row = {"digest": _digest(value), "id": uuid7(), "key_id": key_id}
        async with self._database.transaction() as connection:
            if replaces is not None:
                await self._end(connection, replaces)
            await connection.execute(team_sessions.insert().values(**row))
        return value

    async def find(self, value: str, *, seen: bool = True) -> Principal | None:
        """Whose living session is behind a cookie's value, None when there is none.

        Notes that it was `seen`: by a person, not by a page that asks on its own.
        """
        if not _VALUE.fullmatch(value):
            return None
        query = (
            select(*PRINCIPAL, works().label("works"))
            .select_from(team_sessions.join(team_keys, team_keys.c.id == _ROW.key_id))
            .join(teams, teams.c.id == team_keys.c.team_id)
            .where(_ROW.digest == _digest(value), self._in_time())
        )
        async with self._database.autocommit() as connection:
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            if not row.works or row.suspended_at is not None:
                await self._end(connection, value)
                return None
            if seen:
                await self._note(connection, value)
        return principal_of(row)

    async def end(self, value: str) -> bool:
        """Signs out; False when this was no living session."""
        if not _VALUE.fullmatch(value):
            return False
        async with self._database.autocommit() as connection:
            return await self._end(connection, value)

    async def clear(self) -> None:
        """Deletes the rows of sessions that are over."""
        async with self._database.autocommit() as connection:
            await connection.execute(team_sessions.delete().where(~self._in_time()))

    async def _note(self, connection: AsyncConnection, value: str) -> None:
        # A seldom noted request must not let a short idle time run out.
        every = min(SEEN_IS_NOTED_EVERY, self._idle / 4)
        statement = team_sessions.update().where(
            _ROW.digest == _digest(value), self._in_time(), _ROW.last_seen_at < NOW - every
        )
        await connection.execute(statement.values(last_seen_at=NOW))

    async def _end(self, connection: AsyncConnection, value: str) -> bool:
        statement = (
            team_sessions.update()
            .where(_ROW.digest == _digest(value), self._in_time())
            .values(ended_at=NOW)
            .returning(_ROW.id)
        )
        return (await connection.execute(statement)).first() is not None

    def _in_time(self) -> ColumnElement[bool]:
        return and_(
            _ROW.ended_at.is_(None),
            _ROW.last_seen_at > NOW - self._idle,
            _ROW.created_at > NOW - self._absolute,
        )


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
