"""The served process's life: start, signals, drain, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import uvicorn

from gateway.server.acceptor import new_event_loop
from gateway.server.signals import handled

# Where the application may leave `async def drain() -> None` in its lifespan state: awaited after the first signal,
# with the listener open and everything served; it returns when what must not be cut has ended.
DRAIN = "drain"
FORCED_CANCEL_SECONDS = 0.4
FORCED_PATIENCE_SECONDS = 0.3
PATIENCE_SECONDS = 2.0
CLOSING_SECONDS = 4.0  # beyond the drain; workers' parent waits longer

logger = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """uvicorn's server with a drain in front of its shutdown.

    First signal: the application drains while the listener stays open, then uvicorn closes what is idle and waits
    for running requests; all of it within `drain_seconds`. Second signal: the end within 1 s. No signal is raised
    again afterwards: the exit code says how it ended.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain_seconds: float,
        on_started: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self.forced = False
        self._drain_seconds = drain_seconds
        self._on_started = on_started
        self._drain_until: float | None = None
        self._draining: asyncio.Task[None] | None = None
        self._main: asyncio.Task[None] | None = None

    def run_to_end(self, sockets: list[socket.socket], signals: Sequence[signal.Signals]) -> int:
        """Serve on bound `sockets` until `signals` end it: 0 drained, 1 not started or cut short."""
        loop = new_event_loop()
        with handled(signals, self.handle_exit):
            try:
                self._main = loop.create_task(self.serve(sockets))
                loop.run_until_complete(self._main)
            except (asyncio.CancelledError, SystemExit):
                logger.debug("ended early", exc_info=True)
                return 1
            finally:
                _close(loop, FORCED_PATIENCE_SECONDS if self.forced else PATIENCE_SECONDS)
        return 1 if self.forced or not self.started else 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `run_to_end` handles signals, from before the start to after the end."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; the second time end at once, unless only the terminal went away."""
        if self._drain_until is None:
            self._drain_until = time.monotonic() + self._drain_seconds
            return
        if sig == signal.SIGHUP:
            return
        self.forced = self.force_exit = self.should_exit = True
        if self._main is not None:
            self._main.get_loop().call_soon_threadsafe(self._cancel_soon, self._main)

    def _cancel_soon(self, main: asyncio.Task[None]) -> None:
        main.get_loop().call_later(FORCED_CANCEL_SECONDS, main.cancel)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and listen. Raises `SystemExit` when either fails, having said why."""
        try:
            await super().startup(sockets)
        except OSError as failure:  # another process came first between our bind and our listen
            logger.error("Cannot listen: %s. Choose another port with --port.", failure.strerror)
            await self.lifespan.shutdown()
            raise SystemExit(1) from failure
        if self._on_started is not None:
            self._on_started()

    async def on_tick(self, counter: int) -> bool:
        """Every 0.1 s: whether to leave the main loop."""
        if self._drain_until is not None and not self.should_exit:
            self._draining = self._draining or asyncio.create_task(self._drain(self._drain_until))
            if self._draining.done():
                if failure := self._draining.exception():
                    logger.error("the application's drain failed", exc_info=failure)
                left = self._drain_until - time.monotonic()
                self.config.timeout_graceful_shutdown = max(1, math.ceil(left))
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for what is being answered, close the application, and be done in time all the same."""
        left = 0.0 if self._drain_until is None else max(0.0, self._drain_until - time.monotonic())
        try:
            async with asyncio.timeout(left + CLOSING_SECONDS):
                await super().shutdown(sockets)
        except TimeoutError:
            logger.warning("ended with something still to be written down")

    async def _drain(self, until: float) -> None:
        drain = self.lifespan.state.get(DRAIN)
        if drain is None:
            return
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await drain()
        except TimeoutError:
            logger.warning("ending after %g s of draining, with work still running", self._drain_seconds)


def _close(loop: asyncio.AbstractEventLoop, patience: float) -> None:
    try:
        loop.run_until_complete(_end_tasks(patience))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _end_tasks(patience: float) -> None:
    """Cancel what still runs and wait for it, but not for ever."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=patience)
