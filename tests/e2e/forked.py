"""Processes that begin where their imports have ended: `python -m MODULE …` forked from one that has loaded it all.

What they run, read and write is what a new interpreter would; only the second it takes to import is spared, a hundred
times over. Starting itself is tested with real interpreters (`test_quickstart`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_LOADED = ["gateway.cli.serve", "gateway.cli.commands.run", "gateway.sandbox.serve", "tests.e2e.forked"]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_LOADED)


class Forked:
    """A child process with the face of `subprocess.Popen`; what it prints goes to the file `output`."""

    def __init__(
        self, module: str, arguments: list[str], environment: Mapping[str, str], output: Path
    ) -> None:
        self.args = [module, *arguments]
        self._process = _context.Process(
            target=_run, args=(module, arguments, dict(environment), str(output))
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(module: str, arguments: list[str], environment: dict[str, str], output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
