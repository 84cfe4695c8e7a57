"""Every command and every call of the admin API is in the documentation."""

from __future__ import annotations

from pathlib import Path

from typer.main import get_command

from gateway.admin.api.routes import ROUTES
from gateway.cli.main import command_line

DOCS = Path(__file__).parents[3] / "docs"


def test_every_command_and_flag_is_documented() -> None:
    text = (DOCS / "cli.md").read_text()
    nouns = get_command(command_line()).commands  # type: ignore[attr-defined]
    for noun, group in nouns.items():
        for verb, command in getattr(group, "commands", {}).items():
            assert f"{noun} {verb}" in text or f"· `{verb} " in text, (noun, verb)
            for parameter in command.params:
                assert any(flag in text for flag in parameter.opts if flag.startswith("--")) or (
                    parameter.param_type_name == "argument" or parameter.opts == ["--id"]
                ), (noun, verb, parameter.opts)


def test_every_call_is_documented() -> None:
    text = (DOCS / "api.md").read_text()
    for row in ROUTES:
        if row.path.startswith("/keys/{id}/quotas"):
            assert "/keys/{id}/quotas" in text
            continue
        last = row.path.rpartition("/")[2]
        assert f"{row.method} {row.path}`" in text or f"`/{last}`" in text or row.path in text, row
