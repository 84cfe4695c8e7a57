"""Token → principal, with a short fixed cache.

An entry lives ten seconds from the moment it was asked for, however often it is used, so a revoked key stops working
everywhere within that time even when nothing else reaches this process. Unknown keys are remembered as such for
the same time. Look-ups of one key at one time share one answer, and those of one turn of the loop one statement: with
more keys than the cache knows most requests need one. A statement waits for no other, so one that hangs holds up nobody
who comes later.

What is forgotten is gone at once: a look-up that is under way then still answers those who wait for it already, but
is not kept, and whoever comes later asks anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import ARRAY, LargeBinary, any_, bindparam, func, select

from gateway import errors
from gateway.access.key_format import TEAM_KEY, ParsedKey, Peppers, parse
from gateway.access.principal import Principal
from gateway.access.principal_cache import Entry, PrincipalCache
from gateway.access.principal_rows import PRINCIPAL, principal_of, works
from gateway.access.signatures import Used
from gateway.access.uses import USE_IS_NOTED_EVERY, Use, Uses
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
        self._next: list[_Reading] = []  # go together when this turn of the loop is over
        self._tasks: set[asyncio.Task[list[Principal | None]]] = set()

    async def authenticate(self, authorization: list[bytes]) -> Principal:
        """The principal of a request's Authorization values.

        Raises GatewayError 401, in one wording, for anything but exactly one good key, and 503 when the key is not
        cached and Postgres cannot be asked.
        """
        token = bearer_token(authorization)
        principal = None if token is None else await self.principal_of(token)
        if principal is None:
            raise errors.unauthenticated()
        return principal

    async def principal_of(self, token: str) -> Principal | None:
        """The principal of a key's text, None when it is no good key; 503 as above. What cannot be a key costs
        nothing."""
        key = parse(token, TEAM_KEY)
        principal = None if key is None else await self._principal(key)
        return None if principal is None or principal.expired(self._clock.now()) else principal

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
        return await promptly(reading.answer)

    def _begin(self, key_id: str, digests: list[bytes], now: float) -> _Reading:
        loop = asyncio.get_running_loop()
        reading = _Reading(key_id, digests, now, loop.create_future())
        self._reading[digests[0]] = reading
        if not self._next:
            loop.call_soon(self._send)
        self._next.append(reading)
        return reading

    def _send(self) -> None:
        # A task of its own: a caller's leaving must not fail the others.
        together, self._next = self._next, []
        task = asyncio.create_task(self._read(together))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._finish(together, task))

    def _finish(self, together: list[_Reading], task: asyncio.Task[list[Principal | None]]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        for number, reading in enumerate(together):
            digest = reading.digests[0]
            listed = self._reading.get(digest) is reading
            if listed:
                del self._reading[digest]
            if task.cancelled():
                reading.answer.cancel()
            elif error is not None:
                reading.answer.set_exception(error)
                reading.answer.exception()  # every caller may have left: this keeps it from being a warning
            else:
                found = task.result()[number]
                reading.answer.set_result(found)
                if listed:
                    entry = Entry(reading.asked_at, reading.key_id, found)
                    self._cache.put(digest, entry, self._clock.monotonic())

    async def _read(self, together: list[_Reading]) -> list[Principal | None]:
        digests = [digest for reading in together for digest in reading.digests]
        async with self._database.autocommit() as connection:
            rows = {
                bytes(row.digest): row
                for row in (await connection.execute(_BY_DIGEST, {"digests": digests})).all()
            }
            found = [
                next((rows[one] for one in reading.digests if one in rows), None) for reading in together
            ]
            uses = [
                Use(Used(row.key_id, bytes(row.digest), row.pepper), reading.digests, due=row.noted_long_ago)
                for reading, row in zip(together, found, strict=True)
                if row is not None
            ]
            await self._uses.note_all(connection, uses)
        return [None if row is None else principal_of(row) for row in found]


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A look-up under way. It is listed while others may join it and its result may be kept: until it is forgotten,
    or too old for the next caller."""

    key_id: str
    digests: list[bytes]
    asked_at: float
    answer: asyncio.Future[Principal | None]


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
        *PRINCIPAL,
        team_keys.c.digest,
        team_keys.c.pepper,
        func.coalesce(team_keys.c.last_used_at < func.now() - USE_IS_NOTED_EVERY, True).label(
            "noted_long_ago"
        ),
    )
    .join_from(team_keys, teams)
    .where(team_keys.c.digest == any_(bindparam("digests", type_=ARRAY(LargeBinary))), works())
)
