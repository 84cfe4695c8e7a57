"""Several server processes on one listening socket."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from gateway.server.signals import ENDING, handled

FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 30.0
KILL_SECONDS = 0.9  # after a second signal
OVERDUE_SECONDS = 10.0  # beyond the drain time
_POLL_SECONDS = 0.2

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Worker:
    """A process, and the pipe by which it says that it serves and learns that its parent is gone.

    `number` counts from 0; a replacement takes over that of the process it replaces.
    """

    process: SpawnProcess
    pipe: Connection
    number: int
    up: bool = False


class Workers:
    """Keeps `count` processes running `target(number, pipe)`, which calls `report_up` when it serves and returns its
    exit code.

    A worker that fails before all have come up ends everything: it would fail again. Later ones are replaced, after
    a rest that doubles while replacements fail. SIGTERM, SIGINT or SIGHUP drains all; a second one that is not SIGHUP
    ends them within 1 s.
    """

    def __init__(self, target: Callable[[int, Connection], None], count: int, drain_seconds: float) -> None:
        self._target = target
        self._count = count
        self._drain_seconds = drain_seconds
        self._workers: list[Worker] = []
        self._signals = 0
        self._failed = False
        self._rest = FIRST_REST_SECONDS
        self._replace_at = 0.0

    def run(self, on_started: Callable[[], None] | None = None) -> int:
        """0 when every worker drained, 1 when one failed to start or had to be ended."""
        with handled(ENDING, self._signalled):
            self._workers = [self._start(number) for number in range(self._count)]
            started = False
            while not self._signals and not self._failed:
                self._watch()
                if not started and not self._failed and all(worker.up for worker in self._workers):
                    started = True
                    if on_started is not None:
                        on_started()
                self._reap(started)
            return self._end()

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGHUP or not self._signals:
            self._signals += 1

    def _start(self, number: int) -> Worker:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=self._target, args=(number, theirs))
        process.start()
        theirs.close()
        return Worker(process, ours, number)

    def _watch(self) -> None:
        """Wait for a word or the end of a worker, a moment at most."""
        starting = [worker.pipe for worker in self._workers if not worker.up]
        wait([*starting, *(worker.process.sentinel for worker in self._workers)], _POLL_SECONDS)
        for worker in self._workers:
            if not worker.up and worker.pipe.poll():
                with contextlib.suppress(EOFError, ConnectionError):
                    worker.up = bool(worker.pipe.recv())
                    self._rest = FIRST_REST_SECONDS

    def _reap(self, started: bool) -> None:
        for worker in [worker for worker in self._workers if not worker.process.is_alive()]:
            self._workers.remove(worker)
            worker.pipe.close()
            logger.error("worker %s ended with exit code %s", worker.process.pid, worker.process.exitcode)
            if not started:
                self._failed = True
                return
            if not worker.up:
                self._rest = min(self._rest * 2, LONGEST_REST_SECONDS)
            self._replace_at = time.monotonic() + self._rest
        if started and len(self._workers) < self._count and time.monotonic() >= self._replace_at:
            taken = {worker.number for worker in self._workers}
            self._workers.append(self._start(min(set(range(self._count)) - taken)))

    def _end(self) -> int:
        ends_at = time.monotonic() + self._drain_seconds + OVERDUE_SECONDS
        told = 0
        while any(worker.process.is_alive() for worker in self._workers) and time.monotonic() < ends_at:
            if told < min(2, max(1, self._signals)):
                told += 1
                for worker in self._workers:
                    worker.process.terminate()
                if told == 2:
                    ends_at = time.monotonic() + KILL_SECONDS
            wait([worker.process.sentinel for worker in self._workers if worker.process.is_alive()], 0.05)
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
        drained = all(worker.process.exitcode in (0, -signal.SIGTERM) for worker in self._workers)
        return 0 if drained and not self._failed else 1


def report_up(pipe: Connection) -> None:
    """Called in a worker: it serves now. When the parent ends without a word, the worker drains."""
    pipe.send(True)
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()


def _end_with_parent(pipe: Connection) -> None:
    with contextlib.suppress(EOFError, ConnectionError):
        pipe.recv()
    os.kill(os.getpid(), signal.SIGTERM)
