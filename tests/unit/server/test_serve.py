"""The served process: start, drain, signals, several workers, exit codes."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.server.serve import ServerOptions, serve
from tests.unit.server.raw_http import DEADLINE, EchoApp, Wire, until
from tests.unit.server.raw_http import Served as Target

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from gateway.server.serve import ServerOptions, serve
options = ServerOptions(host=sys.argv[2], port=int(sys.argv[3]), workers=int(sys.argv[4]), drain_seconds=20,
                        factory=True)
sys.exit(serve("tests.unit.server.raw_http:" + sys.argv[1], options, lambda port: print(port, flush=True)))
"""
READY = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass
class Running:
    """A serving process."""

    process: subprocess.Popen[str]
    port: int

    def connect(self) -> Wire:
        return Target(self.port, EchoApp(), None).connect()  # type: ignore[arg-type]

    def state(self) -> Any:
        with self.connect() as wire:
            wire.send(READY)
            return wire.read().json

    def signal(self, number: signal.Signals) -> float:
        self.process.send_signal(number)
        return time.monotonic()

    def exit_code(self) -> int:
        return self.process.wait(DEADLINE)


def start(
    app: str = "EchoApp", host: str = "127.0.0.1", port: int = 0, workers: int = 1
) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SCRIPT, app, host, str(port), str(workers)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def running(workers: int = 1) -> Iterator[Running]:
    with start(workers=workers) as process:
        try:
            assert process.stdout is not None
            yield Running(process, int(process.stdout.readline()))
        finally:
            for child in (
                psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            ):
                child.kill()
            process.kill()


def test_the_listener_stays_open_while_the_application_drains() -> None:
    with running() as server, server.connect() as wire:
        wire.send(b"GET /paid?0.5 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not server.state()["draining"]
        server.signal(signal.SIGTERM)
        until(lambda: server.state()["draining"])  # new connections are answered
        assert wire.read().body == b"paid"
        assert server.exit_code() == 0


def test_a_second_signal_ends_within_a_second() -> None:
    with running() as server, server.connect() as wire:
        wire.send(b"GET /paid?60 HTTP/1.1\r\nHost: x\r\n\r\n")
        server.state()
        server.signal(signal.SIGTERM)
        until(lambda: server.state()["draining"])
        began = server.signal(signal.SIGINT)
        assert server.exit_code() == 1
        assert time.monotonic() - began < 1.2


def test_workers_drain() -> None:
    with running(workers=2) as server, server.connect() as wire:
        wire.send(b"GET /paid?0.5 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.state()["pid"] != server.process.pid
        server.signal(signal.SIGTERM)
        assert wire.read().body == b"paid"
        assert server.exit_code() == 0


def test_a_failed_start_exits_with_1() -> None:
    with start("FailingApp") as process:
        output, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert output == ""
    assert "no database" in errors


def test_a_taken_port_is_named_and_an_idle_process_interrupted() -> None:
    with running() as server:
        with start(port=server.port) as process:
            output, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == 1
        assert output == ""
        assert errors.strip() == (
            f"Cannot serve on port {server.port} of 127.0.0.1: another program uses it. "
            "Choose another port with --port."
        )
        state = server.state()
        assert state["pid"] == server.process.pid
        assert state["files"][0] == state["files"][1]
        server.signal(signal.SIGINT)
        assert server.exit_code() == 0


def test_an_unknown_host_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert serve(EchoApp(), ServerOptions(host="256.256.256.256", port=0)) == 1
    assert "--host" in caplog.text


def test_several_workers_need_a_name() -> None:
    with pytest.raises(ValueError, match="module:name"):
        serve(EchoApp(), ServerOptions(workers=2))
