"""Child processes of the bench: each with a log of its own, ended by its pid, and never outliving the bench."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gateway.cli.embedded_process import CHILD_SCRIPT

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
STOP_SECONDS = 10.0


class DidNotStartError(Exception):
    """A child that ended, or never answered; the text has the end of its log."""


class Child:
    """A running program; Linux ends it with this process, however that ends."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        tied = [str(int(signal.SIGTERM)), str(os.getpid()), "-1", "-1"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", CHILD_SCRIPT, *tied, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text("utf-8", "replace")

    def wait_until(self, ready: Callable[[], bool], every: float = 0.01) -> None:
        """Waits for `ready`; DidNotStartError when the child ends or 90 s pass."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DidNotStartError(f"{self.log.stem} did not start:\n{self.text()[-2000:]}")
            time.sleep(every)

    def stop(self) -> None:
        """SIGTERM, and after 10 s SIGKILL."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    """A port of loopback nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
