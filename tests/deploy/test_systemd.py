"""The unit: what systemd accepts, with the time a drain takes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.settings.sections import Server
from tests.docs.pages import page

UNIT = "deploy/systemd/pixapi-gateway.service"
PROGRAM = "/opt/gateway/bin/pixapi-gateway"


def values(key: str) -> list[str]:
    return [line.partition("=")[2] for line in page(UNIT).splitlines() if line.startswith(f"{key}=")]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze: the unit was not verified"
)
def test_systemd_accepts_it(tmp_path: Path) -> None:
    """With a program that is installed here in place of ours."""
    unit = tmp_path / "pixapi-gateway.service"
    unit.write_text(page(UNIT).replace(PROGRAM, "/bin/true"), "utf-8")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    own = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, own) == (0, [])


def test_it_migrates_and_then_serves() -> None:
    assert values("ExecStartPre") == [f"{PROGRAM} db upgrade"]
    assert values("ExecStart") == [f"{PROGRAM} serve"]


def test_a_drain_is_not_cut_short() -> None:
    (seconds,) = values("TimeoutStopSec")
    assert int(seconds) >= Server().drain_seconds + 5
    assert values("KillMode") == ["mixed"], "workers would get a second signal, which ends them"


def test_every_secret_is_a_credential_that_is_loaded() -> None:
    loaded = {credential.partition(":")[0] for credential in values("LoadCredential")}
    files = {line.partition("=%d/")[2] for line in values("Environment") if "_FILE=" in line}
    assert loaded == files
    assert {"database_url", "redis_url", "master_keys", "key_pepper"} <= loaded
