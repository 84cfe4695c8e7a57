"""GET /v1/tasks/{id}: the owner's task, nobody else's; with `Prefer: wait=N` not before it has changed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import get_args
from uuid import UUID

from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.access.authenticator import Authenticator
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.proxy.admission import admit
from gateway.proxy.caching import Found, asks_anew
from gateway.proxy.exchange import Exchange, exchange_of
from gateway.proxy.leaving import unless_left
from gateway.proxy.relay import reply
from gateway.tasks.entries import TaskEntries
from gateway.tasks.reader import TaskReader
from gateway.tasks.reading import Cache, Reading
from gateway.tasks.watch import Watch

TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
LONGEST_WAIT = 60
_X_CACHE = {name: (b"x-cache", name.encode()) for name in get_args(Cache)}
_WAIT = re.compile(rb"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tasks:
    """The endpoint, and in `fresh` the rule by which the response cache answers in its place."""

    reader: TaskReader
    entries: TaskEntries
    watch: Watch
    authenticator: Authenticator
    clock: Clock

    async def fresh(self, scope: Scope) -> Found | None:
        """A reading that any process has made and that is still fresh, unless the client wants to wait for another."""
        exchange = exchange_of(scope)
        team_id, task_id = _asked(exchange, scope)
        reading = await self.entries.find(team_id, task_id)
        if reading is None or (not reading.ended and waits(exchange) is not None):
            return None
        return self._found(exchange, reading)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        team_id, task_id = _asked(exchange, scope)
        reading = await self.reader.read(team_id, task_id, exchange.request_id, renew=asks_anew(exchange))
        seconds = waits(exchange)
        if seconds and not reading.ended:
            exchange.waited = True
            changed = await self._wait(task_id, reading, seconds, receive)
            await admit(exchange, self.authenticator)  # a key that was revoked meanwhile is told nothing
            reading = changed or await self._last_known(team_id, task_id, reading)
        found = self._found(exchange, reading)
        await reply(send, 200, found.headers, found.body)

    async def _last_known(self, team_id: UUID, task_id: str, before: Reading) -> Reading:
        try:
            return await self.reader.last_known(team_id, task_id)
        except GatewayError as error:
            if error.status != 503:
                raise
            return replace(before, cache="stale")

    async def _wait(self, task_id: str, seen: Reading, seconds: int, receive: Receive) -> Reading | None:
        """The task once its status is another; None when the time is over or the client has left."""
        return await unless_left(receive, self.watch.change(task_id, seen, seconds))

    def _found(self, exchange: Exchange, reading: Reading) -> Found:
        exchange.cache = reading.cache
        headers = [
            (b"content-type", b"application/json"),
            _X_CACHE[reading.cache],
            (b"age", b"%d" % max(0, int(self.clock.monotonic() - reading.seen_at))),
        ]
        if not reading.ended:
            headers.append((b"retry-after", b"%d" % max(1, round(self.entries.unfinished))))
        if (seconds := waits(exchange)) is not None:
            headers.append((b"preference-applied", b"wait=%d" % seconds))
        return Found(reading.body, headers)


def waits(exchange: Exchange) -> int | None:
    """The seconds of `Prefer: wait=N`, at most `LONGEST_WAIT`; None without it. What is malformed is ignored."""
    if b"prefer" not in exchange.named:
        return None
    for value in exchange.header_values(b"prefer"):
        if (found := _WAIT.search(value)) is not None:
            return min(int(found[1]), LONGEST_WAIT)
    return None


def _asked(exchange: Exchange, scope: Scope) -> tuple[UUID, str]:
    """Whose task and which; raises 404 for what cannot be an id."""
    task_id = scope["path_params"]["id"]
    if exchange.principal is None:
        raise errors.internal_error()
    if not TASK_ID.fullmatch(task_id):
        raise errors.task_not_found()
    exchange.task_id = task_id
    return exchange.principal.team_id, task_id
