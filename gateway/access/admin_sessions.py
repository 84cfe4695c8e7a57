"""Sessions of signed-in people: rows in Postgres, so that ending one ends it everywhere, at once."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, false, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.admin_tokens import AdminPrincipal, Role
from gateway.access.key_format import Peppers
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
    """Begins, finds and ends sessions; times in seconds.

    A session ends by itself after `idle` without a request and `absolute` in any case. It lives no longer than what it
    stands on either: an admin token until that is revoked, the bootstrap token while it is set to this text
    (`bootstrap`, its digests), a provider's word while that `issuer` is configured.
    """

    def __init__(
        self,
        database: Database,
        *,
        idle: float,
        absolute: float,
        bootstrap: Sequence[bytes] = (),
        issuer: str | None = None,
    ) -> None:
        self._database = database
        self._idle, self._absolute = timedelta(seconds=idle), timedelta(seconds=absolute)
        self._bootstrap = list(bootstrap)
        self._issuer = issuer

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
            **self._stands_on(who),
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

    async def find(self, value: str) -> Session | None:
        """The living session behind a cookie's value, None when there is none; notes that it was seen."""
        if not _VALUE.fullmatch(value):
            return None
        query = (
            select(_ROW.id, _ROW.subject, _ROW.role, _ROW.name, _ROW.created_at)
            .outerjoin(admin_tokens, admin_tokens.c.id == _ROW.token_id)
            .where(_ROW.digest == _digest(value), self._alive(), admin_tokens.c.revoked_at.is_(None))
        )
        # A seldom noted request must not let a short idle time run out.
        noted_every = min(SEEN_IS_NOTED_EVERY, self._idle / 4)
        seen = (
            admin_sessions.update()
            .where(_ROW.digest == _digest(value), self._alive(), _ROW.last_seen_at < NOW - noted_every)
            .values(last_seen_at=NOW)
        )
        async with self._database.autocommit() as connection:
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            await connection.execute(seen)
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
            await connection.execute(admin_sessions.delete().where(~self._in_time()))

    async def _end(self, connection: AsyncConnection, value: str) -> bool:
        statement = (
            admin_sessions.update()
            .where(_ROW.digest == _digest(value), self._alive())
            .values(ended_at=NOW)
            .returning(_ROW.id, _ROW.subject)
        )
        row = (await connection.execute(statement)).one_or_none()
        if row is None:
            return False
        subject = ("session", str(row.id))
        await audit.write(connection, actor=row.subject, action="session.sign-out", subject=subject)
        return True

    def _stands_on(self, who: AdminPrincipal) -> dict[str, Any]:
        if who.token_id is not None:
            return {"token_id": who.token_id}
        if who.actor == "bootstrap":
            return {"bootstrap_digest": self._bootstrap[0]}
        return {"issuer": self._issuer}

    def _alive(self) -> ColumnElement[bool]:
        issued = false() if self._issuer is None else _ROW.issuer == self._issuer
        return and_(
            self._in_time(),
            or_(_ROW.token_id.is_not(None), _ROW.bootstrap_digest.in_(self._bootstrap), issued),
        )

    def _in_time(self) -> ColumnElement[bool]:
        return and_(
            _ROW.ended_at.is_(None),
            _ROW.last_seen_at > NOW - self._idle,
            _ROW.created_at > NOW - self._absolute,
        )


def bootstrap_digests(peppers: Peppers, token: str | None) -> list[bytes]:
    """What sessions of the bootstrap token are known by; of no token, none."""
    return [] if token is None else peppers.digests(f"session of the bootstrap token {token}")


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
