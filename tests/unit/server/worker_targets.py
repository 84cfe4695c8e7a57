"""What the processes of `test_workers.py` run: importable, and light to import."""

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from gateway.server.workers import report_up


def serving(folder: Path, number: int, pipe: Connection) -> None:
    """Serves until SIGTERM; the folder gets a file with the process's id."""
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    _come_up(folder, pipe)
    while not done.wait(0.05):
        pass
    sys.exit(0)


def stubborn(folder: Path, number: int, pipe: Connection) -> None:
    """Serves and does not mind SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _come_up(folder, pipe)
    threading.Event().wait(60)


def failing(folder: Path, number: int, pipe: Connection) -> None:
    """Cannot start, unless it is the first to try."""
    try:
        folder.with_suffix(".first").mkdir()
    except FileExistsError:
        sys.exit(1)
    serving(folder, number, pipe)


def _come_up(folder: Path, pipe: Connection) -> None:
    (folder / str(os.getpid())).touch()
    report_up(pipe)
