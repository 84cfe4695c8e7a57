"""One embedded server as a direct child: started with a log file, awaited until it answers, stopped by its own pid."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.cli.embedded_binaries import Account, EmbeddedServerError

CHILD_SCRIPT = Path(__file__).with_name("embedded_child.py")
POLL_SECONDS = 0.01
LOG_LINES = 12


class ServerProcess:
    """A server that runs until `stop`, or until this process dies in whatever way (Linux)."""

    def __init__(self, name: str, log: Path, account: Account | None, stop_signal: signal.Signals) -> None:
        """`log` receives all output, its previous content moves to `….log.1`; `account` None is our own user."""
        self.name = name
        self._log = log
        self._account = account
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str | Path]) -> None:
        """Start `command` and return at once."""
        if self._log.exists():
            self._log.replace(self._log.with_name(self._log.name + ".1"))
        output = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # A session of its own: a terminal's Ctrl-C reaches us alone, and we drain before the servers go.
            self._process = subprocess.Popen(  # noqa: S603
                self._wrapped(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=server_environment(),
                start_new_session=True,
            )
        finally:
            os.close(output)

    def wait_ready(self, answers: Callable[[], bool], deadline: float) -> None:
        """Poll `answers` until it is true.

        EmbeddedServerError with the log's end if the server ends first, or `deadline` (monotonic) passes.
        """
        while not answers():
            if self.poll() is not None:
                raise self._failure(f"ended with exit code {self.poll()}")
            self._wait_a_little(deadline)

    def wait_done(self, deadline: float) -> None:
        """Wait for a command that ends by itself; errors as for `wait_ready`, and when it failed."""
        while (code := self.poll()) is None:
            self._wait_a_little(deadline)
        if code != 0:
            raise self._failure(f"ended with exit code {code}")
        self._process = None

    def _wait_a_little(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise self._failure("was not ready in time")
        time.sleep(POLL_SECONDS)

    @property
    def pid(self) -> int | None:
        """Process id, None unless started and not stopped."""
        return self._process.pid if self._process else None

    def poll(self) -> int | None:
        """Exit code, or None while running (and before the start)."""
        return self._process.poll() if self._process else None

    def request_stop(self) -> None:
        """Send the stop signal; does not wait."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(self._stop_signal)

    def stop(self, deadline: float) -> None:
        """Stop the server and wait, killing it at `deadline` (monotonic); does nothing when it is not running."""
        if self._process is None:
            return
        self.request_stop()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _wrapped(self, command: Sequence[str | Path]) -> list[str]:
        # The kernel signals when the *thread* that started the child ends, so only the main thread may ask for it.
        lives_on = threading.current_thread() is threading.main_thread()
        end_with_us = int(self._stop_signal) if lives_on else 0
        uid, gid = (self._account.uid, self._account.gid) if self._account else (-1, -1)
        numbers = [str(number) for number in (end_with_us, os.getpid(), uid, gid)]
        return [sys.executable, "-I", "-S", str(CHILD_SCRIPT), *numbers, *map(str, command)]

    def _failure(self, what: str) -> EmbeddedServerError:
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return EmbeddedServerError("\n  ".join([f"{self.name} {what}; the end of {self._log}:", *lines]))


def server_environment() -> dict[str, str]:
    """What a server gets of our environment: no secrets, and no PG… variable that would change what it does."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}
