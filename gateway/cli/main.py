"""`pixapi-gateway`: every command by its noun. Only the command that is asked for is loaded, and what it needs beyond
its flags when it runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from gateway import __version__
from gateway.cli.examples import end_with_examples
from gateway.cli.options import Options
from gateway.cli.output import FAILED, note

NAME = "pixapi-gateway"
COMPLETES = "_PIXAPI_GATEWAY_COMPLETE"  # set by a shell that asks what could come next
# In the order of the help: where each command is, or the app of each noun's commands.
COMMANDS: Mapping[str, str] = {
    "serve": "run:serve",
    "quickstart": "run:quickstart",
    "sandbox": "run:sandbox",
    "db": "db:app",
    "config": "config:app",
    "upstream-keys": "upstream_keys:app",
    "teams": "teams:app",
    "keys": "keys:app",
    "quotas": "quotas:app",
    "usage": "usage:usage",
    "tasks": "records:tasks",
    "holds": "holds:app",
    "requests": "requests:app",
    "ledger": "ledger:app",
    "alerts": "alerts:alerts",
    "webhooks": "alerts:webhooks",
    "deliveries": "alerts:deliveries",
    "admin-tokens": "admin_tokens:app",
    "admin-sessions": "admin_sessions:app",
    "audit": "records:audit",
    "secrets": "secrets:app",
    "doctor": "doctor:doctor",
}


def command_line(names: Sequence[str] = tuple(COMMANDS)) -> typer.Typer:
    """The commands of these names: all, unless it is known which is asked for."""
    app = typer.Typer(
        name=NAME,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,  # its tracebacks can print the values of variables
        help="A gateway between a company's teams and the Pixapi media API.",
    )
    app.callback()(_root)
    for name in names:
        module, attribute = COMMANDS[name].split(":")
        found = getattr(import_module(f"gateway.cli.commands.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name=name)(found)
    end_with_examples(app)
    return app


def asked_for(arguments: Sequence[str]) -> Sequence[str]:
    """The names of the commands that these arguments may need."""
    if COMPLETES in os.environ:
        return tuple(COMMANDS)
    first = next(iter(arguments), "")
    before = 2 if first == "--config" else int(first.startswith("--config="))
    name = next(iter(arguments[before:]), "")
    return (name,) if name in COMMANDS else tuple(COMMANDS)


def main() -> None:
    """Runs the command line's command and exits with its code."""
    arguments = with_config_first(sys.argv[1:])
    app = command_line(asked_for(arguments))
    if not asks_for_json(arguments):
        app(args=arguments, prog_name=NAME)
    try:
        sys.exit(app(args=arguments, prog_name=NAME, standalone_mode=False))
    except TyperException as problem:
        body = {"error": {"code": None, "type": "usage_error", "message": problem.format_message()}}
        note(json.dumps(body, ensure_ascii=False))
        sys.exit(problem.exit_code)
    except typer.Abort:
        note("Aborted!")
        sys.exit(FAILED)


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` is among the flags, so that a wrong one is to be answered in JSON too."""
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]


def with_config_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--config DIR` moved to the front, so that it may stand anywhere."""
    first, rest = [], list(arguments)
    for position, argument in enumerate(rest):
        if argument == "--":
            break
        if argument == "--config" or argument.startswith("--config="):
            end = position + (2 if argument == "--config" else 1)
            first, rest[position:end] = rest[position:end], []
            break
    return first + rest


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pixapi-gateway {__version__}")
        raise typer.Exit


def _root(
    ctx: typer.Context,
    config_dir: Annotated[
        Path | None,
        typer.Option("--config", metavar="DIR", help="Folder of gateway.toml and models.toml."),
    ] = None,
    _wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    ctx.obj = Options(config_dir)
