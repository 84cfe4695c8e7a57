"""Waiting for a command that ends by itself, whenever it ends."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from gateway.cli.embedded_binaries import EmbeddedServerError
from gateway.cli.embedded_process import ServerProcess


class Scripted(ServerProcess):
    """Is found running and ended as the test says."""

    def __init__(self, log: Path, *found: int | None) -> None:
        super().__init__("initdb", log, None, signal.SIGTERM)
        log.write_text("the log's end\n")
        self._found = list(found)

    def poll(self) -> int | None:
        return self._found.pop(0) if len(self._found) > 1 else self._found[0]


@pytest.mark.parametrize("before", range(5))
def test_an_end_at_any_moment_is_an_end(tmp_path: Path, before: int) -> None:
    Scripted(tmp_path / "log", *[None] * before, 0).wait_done(time.monotonic() + 10)


def test_a_failure_shows_the_log(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match=r"exit code 1(.|\n)*the log's end"):
        Scripted(tmp_path / "log", None, 1).wait_done(time.monotonic() + 10)


def test_one_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="not ready in time"):
        Scripted(tmp_path / "log", None).wait_done(time.monotonic() + 0.05)
