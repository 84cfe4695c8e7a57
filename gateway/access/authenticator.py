"""Token → principal, with a short fixed cache.

An entry lives ten seconds from the moment it was asked for, however often it is used, so a revoked key stops working
everywhere within that time even when nothing else reaches this process. Unknown keys are remembered as such for
the same time. Look-ups of one key at one time share one query.

What is forgotten is gone at once: a look-up that is under way then still answers those who wait for it already, but
is not kept, and whoever comes later asks anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from sqlalchemy import bindparam, func, or_, select

from gateway import errors
from gateway.access.key_format import TEAM_KEY, ParsedKey, Peppers, parse
from gateway.access.principal import Limits, Network, Principal
from gateway.access.principal_cache import Entry, PrincipalCache
from gateway.access.signatures import Used
from gateway.access.uses import USE_IS_NOTED_EVERY, Uses
from gateway.clock import Clock
from gateway.db.engine import Database, promptly
from gateway.db.tables import team_keys, teams


class Authenticator:
    """`authenticate(header values) -> Principal`; `ttl` in seconds; `hears` whether changes are heard of now."""

    def __init__(
        self,
        database: Database,
        peppers: Peppers,
        clock: Clock,
        ttl: float = 10.0,
        hears: Callable[[], bool] = lambda: True,
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._clock = clock
        self._cache = PrincipalCache(ttl)
        self._hears = hears
        self._uses = Uses(team_keys, peppers, clock)
        self._reading: dict[bytes, _Reading] = {}
        self._tasks: set[asyncio.Task[Principal | None]] = set()  # forgotten ones too

    async def authenticate(self, authorization: list[bytes]) -> Principal:
        """The principal of a request's Authorization values.

        Raises GatewayError 401, in one wording, for anything but exactly one good key, and 503 when the key is not
        cached and Postgres cannot be asked.
        """
        token = bearer_token(authorization)
        key = parse(token, TEAM_KEY) if token is not None else None
        if key is None:
            raise errors.unauthenticated()
        principal = await self._principal(key)
        if principal is None or principal.expired(self._clock.now()):
            raise errors.unauthenticated()
        return principal

    def forget_key(self, key_id: str) -> None:
        """Forgets the key with this public id: called after a change to it has committed."""
        self._cache.forget_key(key_id)
        for digest in [digest for digest, reading in self._reading.items() if reading.key_id == key_id]:
            del self._reading[digest]

    def forget_team(self, team_id: str) -> None:
        """Forgets the keys of this team: called after a change to it has committed."""
        self._cache.forget_team(team_id)
        self._reading.clear()  # whose they are is known when they have ended

    def forget_all(self) -> None:
        """Forgets every key: called when changes may have been missed."""
        self._cache.clear()
        self._reading.clear()

    async def _principal(self, key: ParsedKey) -> Principal | None:
        digests = self._peppers.digests(key.text)
        now = self._clock.monotonic()
        hearing = self._hears()
        entry = self._cache.get(digests[0], now, hearing=hearing)
        if entry is not None:
            return entry.principal
        reading = self._reading.get(digests[0])
        if reading is None or not self._cache.fresh(reading.asked_at, now, hearing=hearing):
            reading = self._begin(key.public_id, digests, now)
        return await promptly(reading.task)

    def _begin(self, key_id: str, digests: list[bytes], now: float) -> _Reading:
        # A task of its own: the first caller's leaving must not fail the others.
        reading = _Reading(key_id, now, asyncio.create_task(self._read(digests)))
        self._reading[digests[0]] = reading
        self._tasks.add(reading.task)
        reading.task.add_done_callback(lambda _: self._finish(digests[0], reading))
        return reading

    def _finish(self, digest: bytes, reading: _Reading) -> None:
        self._tasks.discard(reading.task)
        listed = self._reading.get(digest) is reading
        if listed:
            del self._reading[digest]
        if reading.task.cancelled() or reading.task.exception() is not None:
            return  # every caller may have left: looking at the exception keeps it from being a warning
        if listed:
            entry = Entry(reading.asked_at, reading.key_id, reading.task.result())
            self._cache.put(digest, entry, self._clock.monotonic())

    async def _read(self, digests: list[bytes]) -> Principal | None:
        async with self._database.autocommit() as connection:
            row = (await connection.execute(_BY_DIGEST, {"digests": digests})).first()
            if row is not None:
                used = Used(row.key_id, bytes(row.digest), row.pepper)
                await self._uses.note(connection, used, digests, due=row.noted_long_ago)
        return None if row is None else _principal_of(row)


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A look-up under way. It is listed while others may join it and its result may be kept: until it is forgotten,
    or too old for the next caller."""

    key_id: str
    asked_at: float
    task: asyncio.Task[Principal | None]


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
        team_keys.c.digest,
        team_keys.c.pepper,
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
