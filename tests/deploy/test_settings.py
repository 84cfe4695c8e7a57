"""Every GATEWAY_ variable that a file of the deployment names is a setting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.settings.model import FIELDS, environment_name
from gateway.settings.sources import CONFIG_DIR
from tests.docs.pages import ROOT

SETTINGS = {environment_name(setting) for setting in FIELDS}
NAMES = SETTINGS | {f"{name}_FILE" for name in SETTINGS} | {CONFIG_DIR}
# Of compose itself: ports on the host.
OF_COMPOSE = {"GATEWAY_PORT"}
FILES = [
    ROOT / "docker-compose.yml",
    ROOT / ".env.example",
    ROOT / "Dockerfile",
    ROOT / "scripts" / "make_env.sh",
    *sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file()),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_variables_are_settings(path: Path) -> None:
    named = set(re.findall(r"\bGATEWAY_[A-Z_]+[A-Z]\b", path.read_text("utf-8")))
    assert named - NAMES - OF_COMPOSE == set()


def test_the_files_name_many() -> None:
    text = "".join(path.read_text("utf-8") for path in FILES)
    assert len(NAMES & set(re.findall(r"\bGATEWAY_[A-Z_]+[A-Z]\b", text))) > 15
