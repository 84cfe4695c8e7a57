"""`config check`: settings and price book in one go."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SECRETS = {
    "GATEWAY_DATABASE__URL": "postgresql+psycopg://gateway@localhost/gateway",
    "GATEWAY_REDIS__URL": "redis://localhost:6379/0",
    "GATEWAY_SECRETS__MASTER_KEYS": "kqWm3vT9-pZ0hXb7sLd2cYf6rNj4gAe8",
    "GATEWAY_SECRETS__KEY_PEPPER": "Vn5tQx1z_oRu8bKi3wMh7aCy0eGs4dPl",
}


def check(folder: Path, environment: dict[str, str]) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "config", "check", "--json", "--config", str(folder)],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        timeout=30,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return done.returncode, found


def test_problems_of_settings_and_price_book_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('[models.x]\ncategory = "sound"\nper = "image"\ncredits = 1\n')
    code, found = check(tmp_path, {"GATEWAY_SERVER__PORT": "ninety"})
    named = str(found["problems"])
    assert code == 2
    assert found["ok"] is False
    for part in ("server.port", "secrets.master_keys", "database.url", "category must be"):
        assert part in named


def test_a_good_configuration_is_fine(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(
        '[models.x]\ncategory = "image"\nper = "image"\ncredits = 1.25\naliases = ["y"]\n'
    )
    code, found = check(tmp_path, SECRETS)
    assert (code, found["ok"], found["problems"]) == (0, True, [])


def test_a_missing_price_book_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("")
    code, found = check(tmp_path, SECRETS)
    assert code == 2
    assert "models.toml" in str(found["problems"])
