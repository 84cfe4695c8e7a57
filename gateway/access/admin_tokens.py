"""Admin tokens: who may use the admin API, and as what."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.access.key_format import ADMIN_TOKEN, ParsedKey, Peppers, make, parse
from gateway.access.signatures import Used
from gateway.access.uses import Uses
from gateway.clock import Clock, SystemClock
from gateway.db import audit
from gateway.db.engine import Database
from gateway.db.paging import Keyset, Page, PageOf
from gateway.db.tables import NOW, admin_sessions, admin_tokens
from gateway.ids import uuid7

Role = Literal["admin", "viewer"]
_COLUMNS = [column for column in admin_tokens.c if column.name not in {"digest", "pepper"}]
_ORDER = Keyset("admin_tokens", admin_tokens.c.id)


@dataclass(frozen=True, slots=True)
class AdminPrincipal:
    """Who asks: `actor` as audit entries name it, and what it may do (`viewer` only reads).

    `name` is what people call it; `token_id` says which admin token it showed, None for every other way in.
    """

    actor: str
    role: Role
    name: str = ""
    token_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminToken:
    """A token as stored, without what could be used as one."""

    id: UUID
    name: str
    role: Role
    last4: str
    last_used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token together with its text, which exists nowhere else."""

    token: AdminToken
    secret: str

    def __repr__(self) -> str:
        return f"IssuedToken({self.token.id} …{self.token.last4})"


class AdminTokens:
    """Turns what a caller sends into a principal. Nothing is cached: a revoked token stops at once."""

    def __init__(
        self, database: Database, peppers: Peppers, bootstrap: str | None, clock: Clock | None = None
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._bootstrap = None if bootstrap is None else bootstrap.encode()
        self._uses = Uses(admin_tokens, peppers, clock or SystemClock())

    async def authenticate(self, authorization: Sequence[str]) -> AdminPrincipal:
        """The principal of the request's Authorization headers; 401 unless there is exactly one good one."""
        if len(authorization) != 1:
            raise errors.unauthenticated_admin()
        scheme, _, token = authorization[0].partition(" ")
        if scheme.lower() != "bearer":
            raise errors.unauthenticated_admin()
        # Header values are bytes in latin-1 clothes.
        principal = await self.principal_of(token.strip().encode("latin-1", "replace"))
        if principal is None:
            raise errors.unauthenticated_admin()
        return principal

    async def principal_of(self, token: bytes) -> AdminPrincipal | None:
        """The principal this token's bytes stand for, None when it is unknown or revoked."""
        if self._is_bootstrap(token):
            return AdminPrincipal("bootstrap", "admin", "the bootstrap token")
        parsed = _parsed(token)
        if parsed is None:
            return None
        digests = self._peppers.digests(parsed.text)
        query = select(*_COLUMNS, admin_tokens.c.digest, admin_tokens.c.pepper).where(
            admin_tokens.c.digest.in_(digests), admin_tokens.c.revoked_at.is_(None)
        )
        async with self._database.autocommit() as connection:
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            used = Used(row.id, bytes(row.digest), row.pepper)
            await self._uses.note(connection, used, digests, due=True)
        return AdminPrincipal(f"admin-token:{row.id}", row.role, row.name, row.id)

    def may_be_one(self, token: bytes) -> bool:
        """Whether these bytes have a token's shape and checksum: what has not was never one, and costs no query."""
        return self._is_bootstrap(token) or _parsed(token) is not None

    def _is_bootstrap(self, token: bytes) -> bool:
        return self._bootstrap is not None and hmac.compare_digest(token, self._bootstrap)


async def issue(
    connection: AsyncConnection, actor: str, peppers: Peppers, name: str, role: Role
) -> IssuedToken:
    """A new token and its text."""
    made = make(ADMIN_TOKEN)
    values = {
        "id": uuid7(),
        "name": name,
        "role": role,
        "digest": peppers.sign(made.text),
        "pepper": peppers.names[0],
        "last4": made.text[-4:],
    }
    row = (await connection.execute(admin_tokens.insert().values(**values).returning(*_COLUMNS))).one()
    token = _token(row)
    await _record(connection, actor, "admin-token.issue", token, {"name": name, "role": role})
    return IssuedToken(token, made.text)


async def page(connection: AsyncConnection, which: PageOf) -> Page[AdminToken]:
    """One page of all tokens, revoked ones too."""
    return await _ORDER.read(connection, select(*_COLUMNS), which, _token)


async def find(connection: AsyncConnection, token_id: str) -> AdminToken:
    """The token with this id, a revoked one too; 404."""
    query = select(*_COLUMNS).where(admin_tokens.c.id == _uuid(token_id))
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise _unknown()
    return _token(row)


async def by_ids(connection: AsyncConnection, token_ids: Collection[UUID]) -> dict[UUID, AdminToken]:
    """Those of these tokens that there are."""
    rows = await connection.execute(select(*_COLUMNS).where(admin_tokens.c.id.in_(token_ids)))
    return {row.id: _token(row) for row in rows}


async def revoke(connection: AsyncConnection, actor: str, token_id: str) -> AdminToken:
    """Ends the token and the sessions it opened, for good; 404; repeating it changes nothing."""
    query = select(*_COLUMNS).where(admin_tokens.c.id == _uuid(token_id)).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise _unknown()
    if row.revoked_at is not None:
        return _token(row)
    statement = admin_tokens.update().where(admin_tokens.c.id == row.id).values(revoked_at=NOW)
    token = _token((await connection.execute(statement.returning(*_COLUMNS))).one())
    sessions = admin_sessions.c
    await connection.execute(
        admin_sessions.update()
        .where(sessions.token_id == token.id, sessions.ended_at.is_(None))
        .values(ended_at=NOW)
    )
    await _record(connection, actor, "admin-token.revoke", token, {"name": token.name})
    return token


async def _record(
    connection: AsyncConnection, actor: str, action: str, token: AdminToken, detail: dict[str, Any]
) -> None:
    await audit.write(
        connection, actor=actor, action=action, subject=("admin-token", str(token.id)), detail=detail
    )


def _parsed(token: bytes) -> ParsedKey | None:
    return parse(token.decode("ascii", "replace"), ADMIN_TOKEN)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _unknown() from None


def _unknown() -> errors.GatewayError:
    return errors.not_found("There is no admin token with this id.", "admin_token_not_found")


def _token(row: Row[Any]) -> AdminToken:
    return AdminToken(**row._mapping)
