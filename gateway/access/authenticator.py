"""Token → principal, with a short fixed cache.

An entry lives ten seconds from the moment it was asked for, however often it is used, so a revoked key stops working
everywhere within that time even when nothing else reaches this process. Unknown keys are remembered as such for
the same time. Look-ups of one key at one time share one answer, and those of one turn of the loop one statement: with
more keys than the cache knows most requests need one. A statement waits for no other, so one that hangs holds up nobody
who comes later. That a key was used is written down afterwards, beside the requests.

What is forgotten is gone at once: a look-up that is under way then still answers those who wait for it already, but
is not kept, and whoever comes later asks anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, LargeBinary, any_, bindparam, func, select

from gateway import errors
from gateway.access.key_format import LENGTH, TEAM_KEY, Peppers, parse
from gateway.access.principal import Principal
from gateway.access.principal_cache import Entry, PrincipalCache
from gateway.access.principal_rows import PRINCIPAL, principal_of, works
from gateway.access.signatures import Used
from gateway.access.uses import USE_IS_NOTED_EVERY, LaterUses, Use, Uses
from gateway.clock import Clock
from gateway.db.direct import Direct
from gateway.db.engine import Database, StatementRefusedError, promptly
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
        self._uses = LaterUses(database, Uses(team_keys, peppers, clock))
        self._reading: dict[bytes, _Reading] = {}
        self._next: list[_Reading] = []  # go together when this turn of the loop is over
        self._tasks: set[asyncio.Task[None]] = set()

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
        """The principal of a key's text, None when it is no good key; 503 as above. What cannot be a key is not looked
        up."""
        if len(token) != LENGTH or not token.isascii():
            return None
        principal = await self._principal(token)
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

    async def noted(self) -> None:
        """Returns when the use of every key that was looked up so far is written down, or cannot be."""
        await self._uses.noted()

    async def _principal(self, token: str) -> Principal | None:
        digest = self._peppers.sign(token)
        now = self._clock.monotonic()
        hearing = self._hears()
        entry = self._cache.get(digest, now, hearing=hearing)
        if entry is not None:
            return entry.principal
        key = parse(token, TEAM_KEY)
        if key is None:
            return None
        reading = self._reading.get(digest)
        if reading is None or not self._cache.fresh(reading.asked_at, now, hearing=hearing):
            reading = self._begin(key.public_id, self._peppers.digests(token), now)
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

    def _finish(self, together: list[_Reading], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        for reading in together:
            if not reading.answer.done():
                self._end(reading, error)

    async def _read(self, together: list[_Reading]) -> None:
        """Answers these look-ups. One whose row cannot be read fails alone."""
        try:
            rows = await self._rows(together)
        except StatementRefusedError as error:
            half = len(together) // 2
            if half:
                await self._read(together[:half])
                await self._read(together[half:])
            else:
                self._end(together[0], error)
        else:
            for reading, row in zip(together, rows, strict=True):
                self._end(reading, _found(row))

    async def _rows(self, together: list[_Reading]) -> list[Any]:
        """The rows of their keys, None of a key that there is not; their use will be noted."""
        digests = [digest for reading in together for digest in reading.digests]
        there = {row.digest: row for row in await self._database.ask(_BY_DIGEST, digests=digests)}
        rows = [next((there[one] for one in reading.digests if one in there), None) for reading in together]
        for reading, row in zip(together, rows, strict=True):
            if row is not None and (row.noted_long_ago or row.pepper != self._peppers.names[0]):
                used = Used(row.key_id, row.digest, row.pepper)
                self._uses.note(Use(used, reading.digests, due=row.noted_long_ago))
        return rows

    def _end(self, reading: _Reading, found: Principal | BaseException | None) -> None:
        digest = reading.digests[0]
        listed = self._reading.get(digest) is reading
        if listed:
            del self._reading[digest]
        if isinstance(found, asyncio.CancelledError):
            reading.answer.cancel()
        elif isinstance(found, BaseException):
            reading.answer.set_exception(found)
            reading.answer.exception()  # every caller may have left: this keeps it from being a warning
        else:
            reading.answer.set_result(found)
            if listed:
                self._cache.put(
                    digest, Entry(reading.asked_at, reading.key_id, found), self._clock.monotonic()
                )


def _found(row: Any) -> Principal | ValueError | None:
    try:
        return None if row is None else principal_of(row)
    except ValueError as error:  # something in it is not what it should be
        return error


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


_BY_DIGEST = Direct(
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
