"""What every command has: --json, an example that can be typed, and flags named as the API's fields."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from typer.main import get_command
from typer.testing import CliRunner

from gateway.admin.api.routes import ROUTES
from gateway.cli.examples import EXAMPLES
from gateway.cli.main import command_line

STAYING = {"serve", "quickstart", "sandbox"}  # until they are stopped
# Flags that are no field of the API: they choose what is done, or how it is printed.
OWN = {
    "--json", "--help", "--yes", "-y", "--csv", "--repair", "--offline", "--revision", "--from", "--to",
    "--limited", "--no-enforce", "--unfinished", "--disabled", "--id",
    "--before", "--export", "--no-export", "--dry-run",
}  # fmt: skip


def _commands() -> Iterator[tuple[str, Any]]:
    for noun, found in get_command(command_line()).commands.items():  # type: ignore[attr-defined]
        verbs = getattr(found, "commands", None)
        yield from ((f"{noun} {verb}", command) for verb, command in (verbs or {}).items())
        if verbs is None:
            yield noun, found


COMMANDS = dict(_commands())


def _fields() -> set[str]:
    """Every name a call of the admin API reads: in its path, query or body."""
    found = set()
    for row in ROUTES:
        found |= {part.strip("{}") for part in row.path.split("/") if part.startswith("{")}
        for model in (row.body, row.query):
            found |= _names(model)
    return found | {"key", "team"}  # of a path, with other words


def _names(model: type[BaseModel]) -> set[str]:
    own = {field.alias or name for name, field in model.model_fields.items()} | set(model.model_fields)
    inner = [part for field in model.model_fields.values() for part in _models(field.annotation)]
    return own.union(*map(_names, inner))


def _models(annotation: Any) -> list[type[BaseModel]]:
    parts = [annotation, *getattr(annotation, "__args__", ())]
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - STAYING))
def test_a_command_takes_json_and_names_its_flags_as_the_api_does(name: str) -> None:
    flags = {
        flag
        for parameter in COMMANDS[name].params
        for flag in (*parameter.opts, *parameter.secondary_opts)
        if flag.startswith("-")
    }
    assert "--json" in flags
    fields = _fields()
    odd = {flag for flag in flags - OWN if flag.removeprefix("--").replace("-", "_") not in fields}
    assert odd == set()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_of_a_command_ends_with_an_example(name: str) -> None:
    result = CliRunner().invoke(command_line(), [*name.split(), "--help"])
    assert result.exit_code == 0
    assert COMMANDS[name].help
    assert "Example:\n    pixapi-gateway " + name in result.stdout


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_can_be_typed(name: str) -> None:
    """Its flags are the command's, and nothing that is required is missing."""
    assert name in COMMANDS, "an example of a command that is not there"
    line = EXAMPLES[name].partition(" < ")[0].partition(" > ")[0]
    arguments = shlex.split(line)[len(name.split()) :]
    COMMANDS[name].make_context(name, arguments)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["quotas", "set", "--team", "a", "--period", "mnth", "--limit", "1"], "month"),
        (["holds", "list", "--state", "unkown"], "unknown"),
        (["holds", "resolve", "x", "--outcome", "realease", "--reason", "r"], "release"),
        (["admin-tokens", "issue", "--name", "n", "--role", "veiwer"], "viewer"),
        (["usage", "--by", "team,modell"], "model"),
        (["quota"], "quotas"),
        (["secrets", "rotat"], "rotate"),
        (["doctr"], "doctor"),
    ],
)
def test_a_slip_in_a_word_is_answered_with_what_was_meant(arguments: list[str], meant: str) -> None:
    result = CliRunner().invoke(command_line(), arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Did you mean '{meant}'?" in result.stderr
