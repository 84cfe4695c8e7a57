"""A quickstart as a child process: what it printed, the processes it started, and whether they are gone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.harness import eventually

START_SECONDS = 40.0
STOP_SECONDS = 20.0


@dataclass
class Started:
    """Times in seconds: `seconds` from the start to the awaited output, `stop_seconds` from the signal to the end."""

    child: subprocess.Popen[bytes]
    port: int
    folder: Path
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    stop_seconds: float = 0.0
    _seen: set[psutil.Process] = field(default_factory=set)

    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def printed(self) -> dict[str, Any]:
        """The line of JSON."""
        found: dict[str, Any] = json.loads(self.printed_text("\n"))
        return found

    def printed_text(self, last: str) -> str:
        """Everything on standard output, once `last` is in it; fails when the process ends before."""

        def there() -> bool:
            assert last in self.stdout() or self.child.poll() is None, self.stderr()
            return last in self.stdout()

        eventually(there, START_SECONDS)
        self.seconds = time.monotonic() - self.began
        return self.stdout()

    def family(self) -> set[psutil.Process]:
        """The processes below it now; `left` remembers them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen |= set(psutil.Process(self.child.pid).children(recursive=True))
        return {process for process in self._seen if process.is_running()}

    def runs(self, name: str) -> bool:
        """Whether a program with `name` in its command line is below it now."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(name in word for word in process.cmdline()):
                    return True
        return False

    def wait(self) -> int:
        """The exit code of one that ends by itself."""

        def ended() -> bool:
            self.family()
            return self.child.poll() is not None

        eventually(ended, START_SECONDS)
        return self.child.wait()

    def stop(self, with_signal: signal.Signals) -> int:
        """Sends a signal; the exit code."""
        self.family()
        began = time.monotonic()
        self.child.send_signal(with_signal)
        code = self.child.wait(STOP_SECONDS)
        self.stop_seconds = time.monotonic() - began
        return code

    def left(self) -> list[psutil.Process]:
        """What still runs of everything it started."""
        return alive(self._seen)


@contextlib.contextmanager
def started(data: Path, *flags: str, port: int | None = None, **environment: str) -> Iterator[Started]:
    """`quickstart --data DATA` until the block ends. Without `port` it gets a free one."""
    port = port or free_port()
    command = [
        sys.executable,
        "-m",
        "gateway",
        "quickstart",
        "--data",
        str(data),
        "--port",
        str(port),
        *flags,
    ]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "PIXAPI_"))}
    folder = Path(tempfile.mkdtemp(prefix="output-", dir=data.parent))
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**own, "NO_PROXY": "127.0.0.1", **environment},
            # A shell starts what it runs in the background with Ctrl-C ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    run = Started(child, port, folder)
    try:
        yield run
    finally:
        if child.poll() is None:
            run.stop(signal.SIGINT)


def alive(processes: set[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; an orphan nobody has reaped yet does not."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def bash(script: str) -> str:
    """What a pasted script prints; it must succeed."""
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A folder every user may pass through, unlike pytest's own: root runs the databases as another user."""
    folder = Path(tempfile.mkdtemp(prefix="pxg-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
