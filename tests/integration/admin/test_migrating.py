"""The loop of docs/migrating.md makes the teams, keys and quotas of its lists, run as it stands there."""

from __future__ import annotations

import csv
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, page

SECONDS = 110

pytestmark = pytest.mark.long


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    """A deployment's, with the command on PATH."""
    command = tmp_path / "bin" / "pixapi-gateway"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gateway "$@"\n')
    command.chmod(0o755)
    own = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return own | {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GATEWAY_CONFIG_DIR": str(ROOT / "config"),
        "GATEWAY_DATABASE__URL": database_url,
        "GATEWAY_REDIS__URL": "redis://127.0.0.1:1/0",
        "GATEWAY_SECRETS__MASTER_KEYS": "migrating-master-q7Zr2Lx9Wv4Tn8Kd3Hs6",
        "GATEWAY_SECRETS__KEY_PEPPER": "migrating-pepper-m5Yb1Gc8Jf0Pa3Ue7Ri2",
    }


def test_the_loop_makes_what_its_lists_say(environment: dict[str, str], tmp_path: Path) -> None:
    (script,) = blocks(page("docs/migrating.md"), "sh")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr

    teams = [json.loads(line) for line in (tmp_path / "teams.jsonl").read_text().splitlines()]
    assert [(team["slug"], team["quotas"][0]["limit"]) for team in teams] == [
        ("studio", 200),
        ("films", 1500),
    ]
    issued = list(csv.reader((tmp_path / "issued.csv").read_text().splitlines()))
    assert [row[:2] for row in issued] == [["studio", "laptop"], ["films", "pipeline"], ["films", "trainee"]]
    assert all(secret.startswith(f"pxg_{ident}_") for *_, ident, secret in issued)
    assert stat.S_IMODE((tmp_path / "issued.csv").stat().st_mode) == 0o600

    command = ["pixapi-gateway", "quotas", "list", "--key", issued[2][2], "--json"]
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=30)
    (quota,) = json.loads(listed.stdout)["data"]
    assert (quota["period"], quota["limit"], quota["enforce"]) == ("month", 40.5, True)
