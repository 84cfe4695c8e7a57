"""What the doctor says of settings and secrets, and when it says that all is well."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gateway.cli.doctor.check import Check, fail, ok, size, warn
from gateway.cli.doctor.doctor import Findings, judge_settings, secrets
from gateway.cli.main import command_line
from tests.unit.cli.doctor.facts import REQUIRED, SHIPPED, settings

MASTER, PEPPER = REQUIRED["GATEWAY_SECRETS__MASTER_KEYS"], REQUIRED["GATEWAY_SECRETS__KEY_PEPPER"]


def test_only_a_failure_is_one() -> None:
    assert Findings([ok("a", "x"), warn("b", "y", "z")]).ok
    assert not Findings([ok("a", "x"), fail("b", "y", "z")]).ok


def test_doubts_about_settings_are_a_check_each() -> None:
    assert judge_settings([]) == [Check("settings", "ok", "every value can be used")]
    plain = settings(UPSTREAM__BASE_URL="http://pixapi.example.com")
    assert [check.state for check in judge_settings(plain.warnings)] == ["warn"]


def test_each_secret_is_its_own() -> None:
    assert secrets(settings()).found == "1 master key and 1 pepper"
    assert "secrets verify" in secrets(settings(SECRETS__MASTER_KEYS=f"{MASTER},{MASTER[::-1]}")).found
    shared = settings(SECRETS__KEY_PEPPER=MASTER)
    assert (secrets(shared).state, MASTER in secrets(shared).found) == ("warn", False)
    assert [check.state for check in judge_settings(shared.warnings)] == ["ok"], "it is said once"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (1536, "1.5 KiB"), (8 * 1024**3, "8.0 GiB"), (2 * 1024**4, "2.0 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_settings_that_cannot_be_used_end_it_with_every_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in REQUIRED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GATEWAY_SERVER__PORT", "many")
    result = CliRunner().invoke(command_line(), ["--config", str(SHIPPED), "doctor", "--json"])
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert not found["ok"]
    assert {check["state"] for check in found["checks"]} == {"fail"}
    text = result.stdout
    assert all(name in text for name in ("server.port", "database.url", "redis.url", "secrets.master_keys"))
