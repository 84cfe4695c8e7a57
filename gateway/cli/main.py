"""`pixapi-gateway`: every command by its noun. What a command needs beyond its flags is loaded when it runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from gateway import __version__
from gateway.cli.commands import (
    admin_sessions,
    admin_tokens,
    alerts,
    config,
    db,
    doctor,
    holds,
    keys,
    ledger,
    quotas,
    records,
    requests,
    run,
    secrets,
    teams,
    upstream_keys,
    usage,
)
from gateway.cli.examples import end_with_examples
from gateway.cli.options import Options
from gateway.cli.output import FAILED, note

NAME = "pixapi-gateway"
app = typer.Typer(
    name=NAME,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # its tracebacks can print the values of variables
    help="A gateway between a company's teams and the Pixapi media API.",
)
app.command()(run.serve)
app.command()(run.quickstart)
app.command()(run.sandbox)
app.add_typer(db.app, name="db")
app.add_typer(config.app, name="config")
app.add_typer(upstream_keys.app, name="upstream-keys")
app.add_typer(teams.app, name="teams")
app.add_typer(keys.app, name="keys")
app.add_typer(quotas.app, name="quotas")
app.command()(usage.usage)
app.add_typer(records.tasks, name="tasks")
app.add_typer(holds.app, name="holds")
app.add_typer(requests.app, name="requests")
app.add_typer(ledger.app, name="ledger")
app.add_typer(alerts.alerts, name="alerts")
app.add_typer(alerts.webhooks, name="webhooks")
app.add_typer(alerts.deliveries, name="deliveries")
app.add_typer(admin_tokens.app, name="admin-tokens")
app.add_typer(admin_sessions.app, name="admin-sessions")
app.add_typer(records.audit, name="audit")
app.add_typer(secrets.app, name="secrets")
app.command()(doctor.doctor)
end_with_examples(app)


def main() -> None:
    """Runs the command line's command and exits with its code."""
    arguments = with_config_first(sys.argv[1:])
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


@app.callback()
def root(
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
