"""PIXAPI_KEY is looked at before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from gateway.cli import quickstart_children
from gateway.cli.embedded import EmbeddedServerError
from gateway.cli.main import command_line


@pytest.mark.parametrize("given", ["sk_…", "sk_...", "sk_live two words", "sk_live_ümlaut", "x" * 513])
def test_what_is_no_key_is_refused_without_repeating_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    def started(data: Path, *, with_sandbox: bool) -> NoReturn:
        raise EmbeddedServerError(f"databases are started in {data}")

    monkeypatch.setattr(quickstart_children, "quickstart_children", started)
    data = tmp_path / "data"
    result = CliRunner().invoke(
        command_line(), ["quickstart", "--data", str(data)], env={"PIXAPI_KEY": given}
    )
    assert result.exit_code == 2
    assert result.stderr.startswith("PIXAPI_KEY is not a Pixapi key: ")
    assert given not in result.output
    assert not data.exists()
