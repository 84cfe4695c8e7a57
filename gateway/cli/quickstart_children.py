"""What the quickstart runs beside itself: both databases, and the simulated Pixapi unless there is a real key.

Imports little: these start first, and the gateway's own modules are loaded meanwhile.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.embedded import EmbeddedServerError, EmbeddedServers
from gateway.cli.embedded_process import ServerProcess
from gateway.cli.quickstart_files import keep_port, sandbox_port

__all__ = ["Children", "EmbeddedServerError", "Sandbox", "quickstart_children"]

SANDBOX_START_SECONDS = 15.0
SANDBOX_STOP_SECONDS = 2.0


class Sandbox:
    """The simulated Pixapi on a port of its own, with its log in `data`."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._port = sandbox_port(data)
        self._process = ServerProcess("Sandbox", data / "sandbox.log", None, signal.SIGTERM)
        self._deadline = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts it and returns at once."""
        self._deadline = time.monotonic() + SANDBOX_START_SECONDS
        self._process.start([sys.executable, "-m", "gateway.sandbox", "--port", str(self._port)])

    def wait_ready(self) -> None:
        """Waits until it answers. Raises EmbeddedServerError when it ends or takes too long."""
        self._process.wait_ready(self._answers, self._deadline)
        keep_port(self._data, self._port)

    def stop(self) -> None:
        self._process.stop(time.monotonic() + SANDBOX_STOP_SECONDS)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/sandbox/state", timeout=1):  # noqa: S310 - our own child
                return True
        except (urllib.error.URLError, OSError):
            return False


@dataclass(frozen=True, slots=True)
class Children:
    """Two databases that answer, and a sandbox that is starting; None: the real Pixapi is used."""

    servers: EmbeddedServers
    sandbox: Sandbox | None


@contextmanager
def quickstart_children(data: Path, *, with_sandbox: bool) -> Iterator[Children]:
    """The children, until the block ends. SIGTERM is a KeyboardInterrupt from here on.

    Raises EmbeddedServerError when one cannot start; then nothing is left running.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    with ExitStack() as stack:
        servers = EmbeddedServers(data)
        stack.callback(servers.stop)
        servers.start()
        sandbox = Sandbox(data) if with_sandbox else None
        if sandbox is not None:
            stack.callback(sandbox.stop)
            sandbox.start()
        yield Children(servers, sandbox)


def _interrupt(_signal: int, _frame: object) -> None:
    if threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt
