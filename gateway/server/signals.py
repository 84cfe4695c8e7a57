"""Signal handlers for a while."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

# What ends a server. A terminal that closes sends SIGHUP more than once: it begins a drain and never cuts one short.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def handled(
    signals: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle `signals` with `handler` meanwhile; nothing outside the main thread, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals if not _kept_out(number)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _kept_out(number: signal.Signals) -> bool:
    """nohup starts programs that should not hear of the terminal's end."""
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
