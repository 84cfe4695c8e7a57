"""What an admin has changed is forgotten in every process, not only in the one that was asked."""

from __future__ import annotations

import asyncio
import logging

from gateway.access.authenticator import Authenticator
from gateway.admin.api.route import Topic
from gateway.cache.events import Event, Events
from gateway.errors import GatewayError
from gateway.pool.pool import Pool

log = logging.getLogger("gateway.admin")


class Announcements:
    """Forgets here, and announces to every process, what was changed. Without Redis others notice when their caches
    end."""

    def __init__(self, authenticator: Authenticator, pool: Pool, events: Events) -> None:
        self._authenticator = authenticator
        self._pool = pool
        self._events = events
        self._refreshing: set[asyncio.Task[None]] = set()
        events.listen("upstream-key", self._pool_changed)

    async def announce(self, topic: Topic, ident: str) -> None:
        """Called after the change was committed."""
        if topic == "key":
            self._authenticator.forget_key(ident)
        elif topic == "team":
            self._authenticator.forget_team(ident)
        else:
            await self._refresh_pool()
        self._events.publish(topic, ident)

    def _pool_changed(self, _: Event) -> None:
        task = asyncio.create_task(self._refresh_pool())
        self._refreshing.add(task)
        task.add_done_callback(self._refreshing.discard)

    async def _refresh_pool(self) -> None:
        try:
            await self._pool.refresh()
        except GatewayError as error:
            log.warning("the pool is refreshed later", extra={"reason": error.reason})
