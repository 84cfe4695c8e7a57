"""Work that is done again and again beside the requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from gateway.errors import GatewayError

log = logging.getLogger("gateway.background")


async def every(seconds: float, action: Callable[[], Awaitable[None]], *, at_once: bool = False) -> None:
    """Runs `action` for ever; a failure is logged and tried again next time."""
    while True:
        if not at_once:
            await asyncio.sleep(seconds)
        at_once = False
        try:
            await action()
        except GatewayError as error:
            log.warning("background work failed", extra={"reason": error.reason})
        except Exception:
            log.exception("background work failed")


async def watch_lag(observe: Callable[[float], None], seconds: float = 0.5) -> None:
    """Observes for ever how many seconds later than asked the event loop comes back to a sleeper."""
    while True:
        due = monotonic() + seconds
        await asyncio.sleep(seconds)
        observe(max(0.0, monotonic() - due))


async def cancel(loops: Sequence[asyncio.Task[None]]) -> None:
    """Ends the loops and waits until they have ended."""
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)
