"""The shipped gateway.toml and the documentation say what the sections say."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings import Settings, masked
from gateway.settings.model import FIELDS, environment_name
from gateway.settings.reference import gateway_toml, replace_table, settings_table, write_reference

ROOT = Path(__file__).parents[3]
REGENERATE = "run: python -m gateway.settings write"


def test_the_shipped_file_is_current() -> None:
    assert (ROOT / "config" / "gateway.toml").read_text(encoding="utf-8") == gateway_toml(), REGENERATE


def test_the_documentation_is_current() -> None:
    document = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert replace_table(document) == document, REGENERATE


def test_the_shipped_file_sets_nothing() -> None:
    assert all(table == {} for table in tomllib.loads(gateway_toml()).values())


def test_the_shipped_file_shows_every_setting_once_and_its_default(
    load_with: Callable[..., Settings],
) -> None:
    text = re.sub(r"(?m)^# (\w+ = )", r"\1", gateway_toml())
    document = tomllib.loads(text)
    assert {f"{section}.{name}" for section, table in document.items() for name in table} == set(FIELDS)
    defaults = masked(load_with())
    for setting, field in FIELDS.items():
        section, name = setting.split(".")
        if not field.is_required() and field.default is not None:
            assert document[section][name] == defaults[section][name], setting


def test_examples_of_the_shipped_file_are_valid_and_its_secrets_are_not(
    load_with: Callable[..., Settings], tmp_path: Path
) -> None:
    text = re.sub(r"(?m)^# (\w+ = )(?!.*…)", r"\1", gateway_toml()).replace(
        "/etc/ssl/certs/company.pem", str(Path(__file__))
    )
    # Its examples of single sign-on lack what nobody can have an example of.
    own = {"GATEWAY_ADMIN__OIDC_CLIENT_SECRET": "x", "GATEWAY_ADMIN__OIDC_ADMIN_GROUPS": "platform-team"}
    settings = load_with(own, toml=text, without=("GATEWAY_DATABASE__URL", "GATEWAY_REDIS__URL"))
    assert settings.upstream.max_connections == 1100
    assert settings.database.url.startswith("postgresql+psycopg://")
    assert gateway_toml().count("…") == 5


def test_the_table_names_every_setting_and_variable() -> None:
    rows = [row for row in settings_table().splitlines() if row.startswith("| `")]
    assert len(rows) == len(FIELDS)
    for setting, row in zip(FIELDS, rows, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[:2] == [f"`{setting}`", f"`{environment_name(setting)}`"]
        assert len(cells) == 5
        assert len(cells[4]) > 10


def test_every_explanation_is_one_sentence_line() -> None:
    for setting, field in FIELDS.items():
        assert field.description, setting
        assert "\n" not in field.description
        assert "|" not in field.description
        assert field.description.endswith("."), setting


def test_writing_brings_a_checkout_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "docs").mkdir()
    document = tmp_path / "docs" / "configuration.md"
    document.write_text("before\n" + settings_table().replace("8080", "1") + "after\n")
    write_reference(tmp_path)
    assert document.read_text() == "before\n" + settings_table() + "after\n"
    assert (tmp_path / "config" / "gateway.toml").read_text() == gateway_toml()


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        replace_table("nothing here")


def test_the_module_prints(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway.settings"]
    done = subprocess.run([*command, "toml"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == gateway_toml()
    failed = subprocess.run([*command, "write"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert failed.returncode == 1
    assert "cannot write" in failed.stderr
