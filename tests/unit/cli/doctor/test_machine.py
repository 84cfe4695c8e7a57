"""What the doctor says of files, folder, port, processors and addresses."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import pytest

from gateway.cli.doctor import machine
from gateway.cli.doctor.machine import Spool
from tests.unit.cli.doctor.facts import settings

GIB = 1024**3
FOLDER = Path("/var/tmp")


@pytest.mark.parametrize(
    ("soft", "hard", "state"),
    [(1024, 2213, "ok"), (1024, resource.RLIM_INFINITY, "ok"), (1024, 2212, "warn")],
)
def test_open_files_are_two_for_each_paid_call_and_some(soft: int, hard: int, state: str) -> None:
    check = machine.files(soft, hard, settings(SERVER__MAX_PAID_IN_FLIGHT="1000"))
    assert check.state == state
    if state == "warn":
        assert "LimitNOFILE=2213" in check.advice
        assert "max_paid_in_flight to 999" in check.advice


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (Spool(FOLDER, None, 9 * GIB, "ext4", False), "ok", "9.0 GiB free of 8.0 GiB"),
        (Spool(FOLDER, "No such file or directory", 0, "", False), "fail", "server.spool_dir"),
        (Spool(FOLDER, None, 7 * GIB, "ext4", False), "warn", "lower server.spool_max_bytes"),
        (Spool(FOLDER, None, 1024**2, "ext4", False), "fail", "free some space"),
        (Spool(FOLDER, None, 9 * GIB, "tmpfs", False), "warn", "count it as memory"),
        (Spool(FOLDER, None, 9 * GIB, "ext4", True), "warn", "keep both on one"),
    ],
)
def test_the_spool_folder(found: Spool, state: str, words: str) -> None:
    check = machine.spool(found, settings())[0]
    assert check.state == state
    assert words in check.found + check.advice


def test_a_spool_smaller_than_one_upload_fails() -> None:
    own = settings(SERVER__SPOOL_MAX_BYTES="1048576")
    check = machine.spool(Spool(FOLDER, None, 9 * GIB, "ext4", False), own)[0]
    assert (check.state, "raise server.spool_max_bytes" in check.advice) == ("fail", True)


def test_a_folder_that_is_not_there_is_found_out(tmp_path: Path) -> None:
    found = machine._spool(tmp_path / "gone")
    assert found.problem == "No such file or directory"
    assert machine._spool(tmp_path).problem is None


@pytest.mark.parametrize(
    ("state", "wanted"), [("free", "ok"), ("gateway", "ok"), ("taken", "fail"), ("refused", "fail")]
)
def test_the_port(state: machine.PortState, wanted: str) -> None:
    assert machine.port(state, settings()).state == wanted
    assert machine.port(state, settings(SERVER__PORT="0")).state == "ok"


def test_a_port_that_somebody_else_uses_is_found_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        other.close()
        assert machine._port("127.0.0.1", number) == "free"
    assert machine._port("192.0.2.1", 8080) == "refused"


@pytest.mark.parametrize(("workers", "state"), [("1", "ok"), ("4", "ok"), ("5", "warn")])
def test_processes_and_cores(workers: str, state: str) -> None:
    assert machine.workers(2, settings(SERVER__WORKERS=workers)).state == state


@pytest.mark.parametrize(
    ("changed", "state", "words"),
    [
        ({}, "ok", "http://127.0.0.1:8080"),
        ({"SERVER__HOST": "0.0.0.0"}, "warn", "server.public_url is not set"),
        ({"SERVER__PUBLIC_URL": "http://gateway.example.com"}, "warn", "https"),
        ({"SERVER__PUBLIC_URL": "https://gateway.example.com"}, "warn", "trusted_proxies"),
        (
            {
                "SERVER__PUBLIC_URL": "https://gateway.example.com",
                "SERVER__TRUSTED_PROXIES": "10.0.0.0/8",
                "SERVER__HOST": "0.0.0.0",
            },
            "ok",
            "https://gateway.example.com",
        ),
        (
            {"SERVER__PUBLIC_URL": "http://localhost:8080", "SERVER__ALLOWED_HOSTS": "gateway.example.com"},
            "fail",
            "add localhost to server.allowed_hosts",
        ),
    ],
)
def test_addresses_fit_together(changed: dict[str, str], state: str, words: str) -> None:
    check = machine.addresses(settings(**changed))[0]
    assert check.state == state
    assert words in check.found + check.advice
