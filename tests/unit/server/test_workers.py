"""Several processes: replaced when they die, drained, ended, never orphaned."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from gateway.server import workers
from gateway.server.workers import Workers
from tests.unit.server import worker_targets
from tests.unit.server.raw_http import DEADLINE, until

ROOT = Path(__file__).parents[3]


def pids(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.iterdir()}


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Run `act` in a thread: signals and `Workers.run` need this one."""
    failures: list[AssertionError] = []

    def run() -> None:
        try:
            act()
        except AssertionError as failure:
            failures.append(failure)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(DEADLINE)
    assert not failures


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_dead_worker_is_replaced_and_all_drain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FIRST_REST_SECONDS", 0.05)
    started = threading.Event()

    def act() -> None:
        assert started.wait(DEADLINE)
        first = pids(tmp_path)
        assert len(first) == 2
        os.kill(min(first), signal.SIGKILL)
        until(lambda: len(pids(tmp_path)) == 3)
        interrupt()

    with meanwhile(act):
        assert Workers(partial(worker_targets.serving, tmp_path), 2, 5).run(started.set) == 0
    assert not any(psutil.pid_exists(pid) for pid in pids(tmp_path))


def test_a_second_signal_ends_what_does_not_end(tmp_path: Path) -> None:
    ended: list[float] = []

    def act() -> None:
        until(lambda: len(pids(tmp_path)) == 2)
        interrupt()
        time.sleep(0.2)  # the first is on its way
        ended.append(time.monotonic())
        interrupt()

    with meanwhile(act):
        assert Workers(partial(worker_targets.stubborn, tmp_path), 2, 60).run() == 1
    assert time.monotonic() - ended[0] < 10  # at once, however busy the machine: not after the 60 s
    assert not any(psutil.pid_exists(pid) for pid in pids(tmp_path))


def test_a_worker_that_cannot_start_ends_all(tmp_path: Path) -> None:
    started: list[bool] = []
    target: Callable[[int, Connection], None] = partial(worker_targets.failing, tmp_path)
    assert Workers(target, 2, 5).run(lambda: started.append(True)) == 1
    assert not started
    assert not any(psutil.pid_exists(pid) for pid in pids(tmp_path))


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = (
        "import sys; from functools import partial; from pathlib import Path\n"
        "from gateway.server.workers import Workers\n"
        "from tests.unit.server.worker_targets import serving\n"
        "Workers(partial(serving, Path(sys.argv[1])), 2, 5).run()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT) as parent:
        until(lambda: len(pids(tmp_path)) == 2)
        parent.kill()
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids(tmp_path)))
