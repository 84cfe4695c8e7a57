"""Looks whether keys that were refused, or fail, work again: by the free model list, never by a paid call.

Each process looks for checks that are due; which of them makes one is agreed in Postgres, under a lease, so what a
killed process had begun is done by another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from uuid import UUID

from gateway.clock import Clock
from gateway.db.engine import Database
from gateway.errors import GatewayError
from gateway.ids import uuid7
from gateway.pool import rests
from gateway.pool.dispatch import Dispatcher
from gateway.pool.health import Look
from gateway.pool.pool import Pool, UpstreamKey

log = logging.getLogger("gateway.pool")

LOOK_SECONDS = 0.5  # between looks for checks that are due
AGAIN_SECONDS = 2.0  # before asking Postgres again for one that another process is making


class Checks:
    """`announce` is told the id of each key whose health a check has changed."""

    def __init__(
        self,
        database: Database,
        pool: Pool,
        dispatcher: Dispatcher,
        clock: Clock,
        announce: Callable[[str], None],
    ) -> None:
        self._database = database
        self._pool = pool
        self._dispatcher = dispatcher
        self._clock = clock
        self._announce = announce
        self._under_way: dict[UUID, asyncio.Task[None]] = {}
        self._asked: dict[UUID, float] = {}

    async def once(self) -> None:
        """Begins every check that is due; one that hangs holds up no other."""
        now = self._clock.monotonic()
        self._asked = {key: at for key, at in self._asked.items() if now - at < AGAIN_SECONDS}
        for key in self._pool.due_checks():
            if key.id not in self._under_way and key.id not in self._asked:
                self._asked[key.id] = now
                self._begin(key)

    async def ended(self) -> None:
        """Waits for the checks under way."""
        while self._under_way:
            await asyncio.wait(set(self._under_way.values()))

    async def close(self) -> None:
        """Leaves the checks under way to other processes."""
        left = set(self._under_way.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def _begin(self, key: UpstreamKey) -> None:
        task = asyncio.create_task(self._check(key))
        self._under_way[key.id] = task
        task.add_done_callback(lambda _: self._under_way.pop(key.id, None))

    async def _check(self, key: UpstreamKey) -> None:
        try:
            if await self._made(key):
                self._announce(str(key.id))
        except GatewayError as error:
            log.warning(
                "upstream key is checked later", extra={"upstream_key": key.label, "reason": error.reason}
            )
        except Exception:
            log.exception("upstream key is checked later", extra={"upstream_key": key.label})

    async def _made(self, key: UpstreamKey) -> bool:
        """Whether the check was this process's to make, and changed something."""
        async with self._database.autocommit() as connection:
            claim = await rests.claim_check(connection, key.id)
        if claim is None:
            await self._pool.refresh()
            return False
        self._asked.pop(key.id, None)
        look = await self._dispatcher.look(key, f"req_{uuid7().hex}")
        level = logging.INFO if look is Look.ACCEPTED else logging.WARNING
        log.log(level, "upstream key checked", extra={"upstream_key": key.label, "reason": look.value})
        async with self._database.transaction() as connection:
            changed = await rests.conclude_check(connection, claim, look)
        await self._pool.refresh()
        return changed
