from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from gateway import __version__
from gateway.cli.main import COMMANDS, COMPLETES, asked_for, asks_for_json, command_line, with_config_first

CONTRACT = {
    "db": {"upgrade", "downgrade", "current"},
    "config": {"check", "show"},
    "upstream-keys": {"add", "list", "drain", "disable", "enable", "remove"},
    "teams": {"create", "list", "show", "update", "suspend", "resume"},
    "keys": {"issue", "list", "show", "update", "revoke", "rotate"},
    "quotas": {"set", "list", "remove"},
    "tasks": {"list", "show"},
    "holds": {"list", "resolve"},
    "ledger": {"verify"},
    "admin-tokens": {"issue", "list", "revoke"},
    "audit": {"list"},
}
HEAVY = ("sqlalchemy", "psycopg", "starlette", "cryptography", "rich.console", "gateway.settings")


def test_every_noun_has_its_verbs_and_each_takes_json() -> None:
    nouns = get_command(command_line()).commands  # type: ignore[attr-defined]
    for noun, verbs in CONTRACT.items():
        found = nouns[noun].commands
        assert verbs <= set(found)
        for verb, command in found.items():
            flags = {flag for parameter in command.params for flag in parameter.opts}
            assert "--json" in flags, (noun, verb)
            assert command.help, (noun, verb)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from gateway.cli.main import command_line\n"
        "assert CliRunner().invoke(command_line(), ['teams', 'create', '--help']).exit_code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["teams", "list"], ("teams",)),
        (["--config", "d", "serve"], ("serve",)),
        (["--config=d", "serve", "--help"], ("serve",)),
        (["--help"], tuple(COMMANDS)),
        (["--version"], tuple(COMMANDS)),
        (["team", "list"], tuple(COMMANDS)),
        (["--config", "teams"], tuple(COMMANDS)),
        ([], tuple(COMMANDS)),
    ],
)
def test_only_what_is_asked_for_is_loaded(arguments: list[str], names: tuple[str, ...]) -> None:
    assert asked_for(arguments) == names


def test_a_shell_that_completes_is_told_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPLETES, "complete_bash")
    assert asked_for(["teams"]) == tuple(COMMANDS)
    assert get_command(command_line()).commands.keys() == COMMANDS.keys()  # type: ignore[attr-defined]


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(command_line(), ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"pixapi-gateway {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(["team"], "teams"), (["teams", "creat"], "create"), (["teams", "create", "--nam", "x"], "--name")],
)
def test_a_slip_is_answered_with_what_was_meant(arguments: list[str], meant: str) -> None:
    result = CliRunner().invoke(command_line(), arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert meant in result.stderr


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["teams", "list"], ["teams", "list"]),
        (["teams", "list", "--config", "d", "--json"], ["--config", "d", "teams", "list", "--json"]),
        (["teams", "list", "--config=d"], ["--config=d", "teams", "list"]),
        (["--config", "d", "teams"], ["--config", "d", "teams"]),
        (["teams", "show", "--", "--config"], ["teams", "show", "--", "--config"]),
        (["teams", "--config"], ["--config", "teams"]),
    ],
)
def test_the_configuration_may_be_named_anywhere(given: list[str], read: list[str]) -> None:
    assert with_config_first(given) == read


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["teams", "create"], "Missing option '--name'"),
        (["teams", "lst"], "Did you mean 'list'?"),
        (["teams", "list", "--limt", "3"], "--limit"),
        (["teams", "suspend", "demo"], "repeat the command with --yes"),
        (["quotas", "set", "--team", "t", "--period", "mnth", "--limit", "1"], "Did you mean 'month'?"),
        (["upstream-keys", "add", "--label", "x"], "stdin"),
    ],
)
def test_with_json_a_wrong_call_is_answered_in_json(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments, "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    error = json.loads(done.stderr)["error"]
    assert (error["code"], error["type"]) == (None, "usage_error")
    assert said in error["message"]


def test_the_flag_is_not_what_follows_the_dashes() -> None:
    assert asks_for_json(["teams", "list", "--json"])
    assert not asks_for_json(["teams", "show", "--", "--json"])
