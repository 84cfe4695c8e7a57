"""Token → principal, with a short fixed cache.

An entry lives ten seconds from the moment it was read, however often it is used, so a revoked key stops working
everywhere within that time even when nothing else reaches this process. Unknown keys are remembered as such for
the same time. Look-ups of one key at one time share one query.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

from sqlalchemy import bindparam, func, or_, select

from gateway import errors
from gateway.access.key_format import TEAM_KEY, Peppers, parse
from gateway.access.principal import Limits, Network, Principal
from gateway.clock import Clock
from gateway.db.engine import Database, promptly
from gateway.db.tables import team_keys, teams

CACHE_ENTRIES = 100_000
USE_IS_NOTED_EVERY = timedelta(minutes=1)


class Authenticator:
    """`authenticate(header values) -> Principal`; `ttl` in seconds."""

    def __init__(self, database: Database, peppers: Peppers, clock: Clock, ttl: float = 10.0) -> None:
        self._database = database
        self._peppers = peppers
        self._clock = clock
        self._ttl = ttl
        self._entries: dict[bytes, tuple[float, Principal | None]] = {}
        self._reading: dict[bytes, asyncio.Task[Principal | None]] = {}

    async def authenticate(self, authorization: list[bytes]) -> Principal:
        """The principal of a request's Authorization values.

        Raises GatewayError 401, in one wording, for anything but exactly one good key, and 503 when the key is not
        cached and Postgres cannot be asked.
        """
        token = bearer_token(authorization)
        key = parse(token, TEAM_KEY) if token is not None else None
        if key is None:
            raise errors.unauthenticated()
        principal = await self._principal(self._peppers.digests(key.text))
        if principal is None or principal.expired(self._clock.now()):
            raise errors.unauthenticated()
        return principal

    def forget(self, key_ids: Iterable[str] | None = None) -> None:
        """Drops cached principals of these keys, or all: called after a change to a key or team has committed."""
        wanted = None if key_ids is None else set(key_ids)
        for digest, (_, principal) in list(self._entries.items()):
            if wanted is None or (principal is not None and principal.key_id in wanted):
                del self._entries[digest]

    async def _principal(self, digests: list[bytes]) -> Principal | None:
        digest, now = digests[0], self._clock.monotonic()
        entry = self._entries.get(digest)
        if entry is not None and now - entry[0] < self._ttl:
            return entry[1]
        reading = self._reading.get(digest)
        if reading is None:
            # A task of its own: the first caller's leaving must not fail the others.
            reading = asyncio.create_task(self._read(digests))
            self._reading[digest] = reading
            reading.add_done_callback(lambda done: self._finish(digest, done))
        return await promptly(reading)

    def _finish(self, digest: bytes, done: asyncio.Task[Principal | None]) -> None:
        del self._reading[digest]
        if not done.cancelled():
            done.exception()  # every caller may have left: that is no reason for a warning

    async def _read(self, digests: list[bytes]) -> Principal | None:
        asked_at = self._clock.monotonic()
        async with self._database.autocommit() as connection:
            row = (await connection.execute(_BY_DIGEST, {"digests": digests})).first()
            if row is not None and row.noted_long_ago:
                await connection.execute(
                    team_keys.update().where(team_keys.c.id == row.key_id).values(last_used_at=func.now())
                )
        principal = None if row is None else _principal_of(row)
        if len(self._entries) >= CACHE_ENTRIES:
            self._entries.clear()
        self._entries[digests[0]] = (asked_at, principal)
        return principal


def bearer_token(authorization: list[bytes]) -> str | None:
    """The token of exactly one well-formed Bearer header, else None."""
    if len(authorization) != 1:
        return None
    scheme, _, token = authorization[0].partition(b" ")
    if scheme.lower() != b"bearer":
        return None
    try:
        return token.strip(b" ").decode("ascii")
    except UnicodeDecodeError:
        return None


_BY_DIGEST = (
    select(
        teams.c.id.label("team_id"),
        teams.c.slug,
        teams.c.name.label("team_name"),
        teams.c.suspended_at,
        teams.c.time_zone,
        teams.c.allowed_models.label("team_models"),
        teams.c.requests_per_minute.label("team_rpm"),
        teams.c.max_in_flight.label("team_in_flight"),
        team_keys.c.id.label("key_id"),
        team_keys.c.name.label("key_name"),
        team_keys.c.expires_at,
        func.coalesce(team_keys.c.last_used_at < func.now() - USE_IS_NOTED_EVERY, True).label(
            "noted_long_ago"
        ),
        team_keys.c.allowed_addresses,
        team_keys.c.allowed_models.label("key_models"),
        team_keys.c.requests_per_minute.label("key_rpm"),
        team_keys.c.max_in_flight.label("key_in_flight"),
    )
    .join_from(team_keys, teams)
    .where(
        team_keys.c.digest.in_(bindparam("digests", expanding=True)),
        team_keys.c.revoked_at.is_(None),
        # The gateway's clock cuts an expiry off between reads; the database's decides.
        or_(team_keys.c.expires_at.is_(None), team_keys.c.expires_at > func.now()),
    )
)


def _principal_of(row: Any) -> Principal:
    addresses: tuple[Network, ...] | None = None
    if row.allowed_addresses is not None:
        addresses = tuple(ip_network(text) for text in row.allowed_addresses)
    return Principal(
        team_id=row.team_id,
        team_slug=row.slug,
        team_name=row.team_name,
        team_suspended=row.suspended_at is not None,
        time_zone=row.time_zone,
        key_id=row.key_id,
        key_name=row.key_name,
        expires_at=row.expires_at,
        allowed_addresses=addresses,
        team_models=None if row.team_models is None else frozenset(row.team_models),
        key_models=None if row.key_models is None else frozenset(row.key_models),
        team_limits=Limits(requests_per_minute=row.team_rpm, max_in_flight=row.team_in_flight),
        key_limits=Limits(requests_per_minute=row.key_rpm, max_in_flight=row.key_in_flight),
    )
