"""What is written down beside requests: tried again until Postgres takes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.errors import GatewayError

log = logging.getLogger("gateway.repeats")

RETRY_SECONDS = 0.5


class Work:
    """Tasks nobody awaits; `close` does, for a while."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Does it beside; what goes wrong is logged."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finish)
        return task

    async def until_written(self, verb: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Repeats the verb until Postgres can be asked."""
        while True:
            try:
                await verb()
            except GatewayError as error:
                log.warning("a call's answer is not kept yet", extra={"reason": error.reason})
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def close(self, seconds: float, more: Callable[[], None]) -> None:
        """Waits so long for what runs, then gives up. `more` is called when some of it has ended."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._running and (left := until - loop.time()) > 0:
            await asyncio.wait(self._running, timeout=left)
            more()
        for task in self._running:
            task.cancel()

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a call's answer could not be kept", exc_info=task.exception())
