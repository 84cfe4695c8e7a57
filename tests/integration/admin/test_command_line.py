"""The command line on a real database: the same objects as the admin API, exit codes, and secrets that stay inside."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.main import command_line

SHIPPED = Path(__file__).parents[3] / "config"
MASTER_KEY = "command-line-master-q7Zr2Lx9Wv4Tn8Kd3Hs6"
PEPPER = "command-line-pepper-m5Yb1Gc8Jf0Pa3Ue7Ri2"
CANARY = "sk-canary-9c1e55d07ab24f38"


@dataclass
class CommandLine:
    """Runs commands in this process with the environment of a deployment."""

    run: Callable[..., Result]

    def ok(self, *arguments: str, secret: str | None = None) -> Any:
        """The object a command prints with --json; anything but exit code 0 fails the test."""
        result = self.run(*arguments, "--json", secret=secret)
        assert result.exit_code == 0, result.output
        assert result.stdout.count("\n") == 1
        return json.loads(result.stdout)


def _environment(database_url: str, config_dir: Path) -> dict[str, str]:
    return {
        "GATEWAY_DATABASE__URL": database_url,
        "GATEWAY_REDIS__URL": "redis://127.0.0.1:1/0",
        "GATEWAY_SECRETS__MASTER_KEYS": MASTER_KEY,
        "GATEWAY_SECRETS__KEY_PEPPER": PEPPER,
        "GATEWAY_CONFIG_DIR": str(config_dir),
    }


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    (tmp_path / "gateway.toml").write_text("")
    shutil.copy(SHIPPED / "models.toml", tmp_path)
    return tmp_path


@pytest.fixture
def cli(module_database_url: str, config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    for name, value in _environment(module_database_url, config_dir).items():
        monkeypatch.setenv(name, value)
    runner = CliRunner()

    def run(*arguments: str, secret: str | None = None) -> Result:
        return runner.invoke(command_line(), list(arguments), input=secret)

    return CommandLine(run)


def test_a_team_from_first_to_last(cli: CommandLine) -> None:
    made = cli.ok(
        "teams", "create", "--name", "Growth", "--time-zone", "Europe/Berlin", "--period", "month",
        "--limit", "123456789012.123456", "--allowed-models", "a, b", "--max-in-flight", "5",
    )  # fmt: skip
    assert (made["slug"], made["allowed_models"], made["max_in_flight"]) == ("growth", ["a", "b"], 5)
    assert cli.run("teams", "show", "growth", "--json").stdout.count('"limit":123456789012.123456,') == 1
    assert cli.ok("teams", "show", "--team", made["id"]) == made
    assert cli.ok("teams", "list")["data"][0] == made
    changed = cli.ok(
        "teams", "update", "growth", "--name", "Grown", "--allowed-models", "none", "--max-in-flight", "none"
    )
    assert (changed["name"], changed["allowed_models"], changed["max_in_flight"]) == ("Grown", None, None)
    assert cli.ok("teams", "suspend", "growth", "--yes")["state"] == "suspended"
    assert cli.ok("teams", "resume", "growth")["state"] == "active"
    entries = cli.ok("audit", "list", "--team", "growth")["data"]
    assert [entry["action"].partition(".")[2] for entry in entries] == [
        "resume", "suspend", "update", "set", "create",
    ]  # fmt: skip
    assert {entry["actor"] for entry in entries} == {f"cli:{pwd.getpwuid(os.getuid()).pw_name}"}


def test_keys_and_quotas(cli: CommandLine) -> None:
    cli.ok("teams", "create", "--name", "Keyed", "--unlimited")
    key = cli.ok("keys", "issue", "--team", "keyed", "--name", "ci", "--expires-at", "2999-01-01T00:00:00Z")
    assert key["secret"].startswith(f"{key['prefix']}_")
    shown = cli.ok("keys", "show", key["id"])
    assert {**shown, "secret": key["secret"]} == key
    updated = cli.ok("keys", "update", key["id"], "--expires-at", "none", "--allowed-addresses", "10.0.0.0/8")
    assert (updated["expires_at"], updated["allowed_addresses"]) == (None, ["10.0.0.0/8"])
    new = cli.ok("keys", "rotate", "--id", key["id"], "--overlap-seconds", "60")
    assert [row["state"] for row in cli.ok("keys", "list", "--team", "keyed")["data"]] == [
        "active",
        "rotated",
    ]
    assert cli.ok("keys", "revoke", new["id"], "--yes")["state"] == "revoked"

    assert cli.ok("quotas", "set", "--team", "keyed", "--period", "day", "--limit", "2.5")["limit"] == 2.5
    shadow = cli.ok("quotas", "set", "--key", key["id"], "--period", "total", "--limit", "1", "--no-enforce")
    assert (shadow["scope"], shadow["enforce"]) == ("key", False)
    assert [row["period"] for row in cli.ok("quotas", "list", "--team", "keyed")["data"]] == ["day"]
    assert cli.ok("quotas", "remove", "--team", "keyed", "--period", "day", "--yes")["period"] == "day"


def test_the_pool(cli: CommandLine) -> None:
    key = cli.ok("upstream-keys", "add", "--label", "main", "--weight", "2", secret=f"{CANARY}\nmore\n")
    assert (key["label"], key["last4"], key["weight"]) == ("main", CANARY[-4:], 2)
    assert cli.ok("upstream-keys", "update", "main", "--account", "acme")["account"] == "acme"
    for verb, state in (("drain", "draining"), ("disable", "disabled"), ("enable", "active")):
        yes = ["--yes"] if verb == "disable" else []
        assert cli.ok("upstream-keys", verb, "main", *yes)["state"] == state
    again = cli.run("upstream-keys", "add", "--label", "other", secret=CANARY)
    assert again.exit_code == 1
    assert "already stored as 'main'" in again.stderr
    outputs = [cli.run(*noun, "list").output for noun in (["upstream-keys"], ["audit"])]
    assert cli.ok("upstream-keys", "remove", "main", "--yes")["id"] == key["id"]
    assert CANARY not in "".join(outputs) + again.output
    assert "upstream-key.add" in outputs[1]


def test_admin_tokens_and_tasks(cli: CommandLine) -> None:
    token = cli.ok("admin-tokens", "issue", "--name", "ops", "--role", "viewer")
    assert token["secret"].startswith("pxa_")
    assert cli.ok("admin-tokens", "revoke", token["id"], "--yes")["revoked_at"] is not None
    assert token["id"] in [row["id"] for row in cli.ok("admin-tokens", "list", "--limit", "200")["data"]]
    assert cli.ok("tasks", "list", "--unfinished")["data"] == []
    assert cli.run("tasks", "show", "task_1").exit_code == 1


def test_people_get_plain_lines_where_there_is_no_terminal(cli: CommandLine) -> None:
    for name in ("Plain one", "Plain two"):
        created = cli.run("teams", "create", "--name", name, "--period", "day", "--limit", "1.50")
        assert f"name\t{name}\n" in created.stdout
        assert "quotas\tday 1.5\n" in created.stdout
    page = cli.run("teams", "list", "--limit", "1")
    header, row, rest = page.stdout.split("\n")
    assert header.split("\t")[:3] == ["slug", "name", "state"]
    assert row.split("\t")[:5] == ["plain-two", "Plain two", "active", "no", "day 1.5"]
    assert rest == ""
    cursor = page.stderr.rpartition("--after ")[2].strip()
    assert "plain-one\t" in cli.run("teams", "list", "--limit", "1", "--after", cursor).stdout
    issued = cli.run("keys", "issue", "--team", "plain-one", "--name", "k")
    assert issued.stdout.count("pxg_") == 2, "the prefix and, once, the key"
    assert "once" in issued.stderr
    assert "\x1b" not in page.output + issued.output


def test_what_fails_says_why_and_with_which_code(cli: CommandLine) -> None:
    unknown = cli.run("teams", "show", "nobody")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert unknown.stderr == "Error: There is no team with this id or slug.\n"
    as_json = cli.run("teams", "show", "nobody", "--json")
    assert (as_json.exit_code, as_json.stdout) == (1, "")
    assert json.loads(as_json.stderr)["error"]["reason"] == "team_not_found"
    wrong = cli.run("teams", "create", "--name", "x", "--period", "year", "--limit", "lots")
    assert wrong.exit_code == 2
    assert (
        "quota.period: must be one of day, week, month, total; quota.limit: must be a number" in wrong.stderr
    )
    neither = cli.run("teams", "create", "--name", "x")
    assert neither.exit_code == 2
    assert "unlimited" in neither.stderr
    for arguments in (
        ["teams", "show"],
        ["teams", "show", "a", "--team", "b"],
        ["quotas", "list"],
        ["quotas", "list", "--team", "a", "--key", "b"],
        ["teams", "create"],
        ["keys", "issue", "--nam", "x"],
    ):
        result = cli.run(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert result.stderr


def test_sessions_are_listed_and_ended(cli: CommandLine) -> None:
    listed = cli.ok("admin-sessions", "list", "--subject", "oidc:nobody")
    assert listed == {"data": [], "has_more": False, "next": None}
    assert cli.ok("admin-sessions", "end", "--subject", "oidc:nobody", "--yes") == listed
    nowhere = cli.run("admin-sessions", "end", "nowhere", "--yes")
    assert (nowhere.exit_code, nowhere.stdout) == (1, "")
    assert "There is no living session with this id." in nowhere.stderr
    both = cli.run("admin-sessions", "end", "nowhere", "--subject", "oidc:nobody", "--yes")
    assert both.exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["teams", "suspend", "t"],
        ["keys", "revoke", "0123456789"],
        ["quotas", "remove", "--team", "t", "--period", "day"],
        ["upstream-keys", "disable", "u"],
        ["upstream-keys", "remove", "u"],
        ["admin-tokens", "revoke", "t"],
        ["admin-sessions", "end", "s"],
        ["admin-sessions", "end", "--subject", "oidc:s"],
        ["holds", "resolve", "h", "--outcome", "settle", "--reason", "r"],
        ["db", "downgrade"],
    ],
)
def test_nothing_is_destroyed_without_a_yes(cli: CommandLine, arguments: list[str]) -> None:
    result = cli.run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--yes" in result.stderr


def test_a_secret_must_come_on_stdin(cli: CommandLine) -> None:
    result = cli.run("upstream-keys", "add", "--label", "x", secret="")
    assert result.exit_code == 2
    assert "stdin" in result.stderr
    bad = cli.run("upstream-keys", "add", "--label", "x", secret=f"{CANARY} with spaces")
    assert bad.exit_code == 2
    assert CANARY not in bad.output


def test_the_schema_is_migrated_up_and_down(
    cli: CommandLine, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_DATABASE__URL", empty_database_url)
    unmigrated = cli.run("teams", "list")
    assert unmigrated.exit_code == 1
    assert "db upgrade" in unmigrated.stderr
    assert cli.ok("db", "current")["revision"] is None
    head = cli.ok("db", "current")["head"]
    assert cli.ok("db", "upgrade") == {"before": None, "after": head}
    assert cli.ok("db", "upgrade") == {"before": head, "after": head}
    assert cli.ok("teams", "list")["data"] == []
    assert cli.ok("db", "downgrade", "--revision", "base", "--yes") == {"before": head, "after": None}


def test_a_database_that_is_gone_is_named(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DATABASE__URL", "postgresql+psycopg://me:hidden-word@127.0.0.1:1/x")
    for arguments in (["teams", "list"], ["db", "upgrade"]):
        result = cli.run(*arguments)
        assert result.exit_code == 1
        assert "127.0.0.1" in result.stderr
        assert "hidden-word" not in result.output


def test_settings_are_checked_and_shown(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.run("config", "check").exit_code == 0
    assert cli.ok("config", "check")["ok"] is True
    shown = cli.run("config", "show")
    assert shown.exit_code == 0
    assert "server.port\t8080\n" in shown.stdout
    assert cli.ok("config", "show")["server"]["port"] == 8080
    assert MASTER_KEY not in shown.output
    assert PEPPER not in shown.output
    monkeypatch.setenv("GATEWAY_SERVER__PORT", "many")
    monkeypatch.delenv("GATEWAY_REDIS__URL")
    for arguments in (["config", "check"], ["config", "show"], ["teams", "list"], ["db", "upgrade"]):
        result = cli.run(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert "server.port" in result.stderr
        assert "redis.url" in result.stderr
    checked = cli.run("config", "check", "--json")
    assert checked.exit_code == 2
    assert {problem["setting"] for problem in json.loads(checked.stdout)["problems"]} == {
        "server.port",
        "redis.url",
    }


def test_the_module_runs_as_the_script_does(module_database_url: str, config_dir: Path) -> None:
    environment = {"PATH": os.environ["PATH"], **_environment(module_database_url, config_dir)}
    del environment["GATEWAY_CONFIG_DIR"]
    (config_dir / "gateway.toml").write_text("[server]\nport = 9191\n")
    command = [sys.executable, "-m", "gateway", "config", "show", "--json", "--config", str(config_dir)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["server"]["port"] == 9191
