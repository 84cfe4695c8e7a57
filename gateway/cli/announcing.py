"""What a command has changed is told to the running gateways, so that they forget it at once."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from gateway.admin.api.route import Topic
from gateway.cache.client import CacheClient
from gateway.cache.events import Events
from gateway.clock import Clock
from gateway.settings import Settings
from gateway.telemetry import Metrics

SECONDS = 0.3
_SILENT = logging.NullHandler()


class Announcer:
    """`Changed` for a process that serves nobody: publishes what was committed, in at most `SECONDS`.

    Without Redis nobody hears of it, and what gateways have cached ends by itself, within `cache.principal`. The
    command has done its work all the same: it neither fails nor says anything of it.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._redis = settings.redis
        self._clock = clock
        # Where nobody handles log lines, Python prints warnings.
        logging.getLogger("gateway.cache").addHandler(_SILENT)

    async def announce(self, topic: Topic, ident: str) -> None:
        redis = self._redis
        client = CacheClient(
            redis.url,
            connect_timeout=redis.connect_timeout,
            timeout=redis.timeout,
            breaker_failures=redis.breaker_failures,
            breaker_seconds=redis.breaker_seconds,
            clock=self._clock,
            metrics=Metrics(),
        )
        events = Events(redis.url, client, self._clock, connect_timeout=redis.connect_timeout)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(SECONDS):
                    await events.publish_now(topic, ident)
        finally:
            await client.close()
