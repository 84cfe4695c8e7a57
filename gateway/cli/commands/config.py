"""`pixapi-gateway config`: the settings of this process."""

from __future__ import annotations

from dataclasses import asdict

import typer

from gateway.cli.options import Json
from gateway.cli.output import USAGE, CommandFailed, fail, note, report

app = typer.Typer(no_args_is_help=True, help="The settings: gateway.toml and GATEWAY_… variables, merged.")


@app.command()
def check(ctx: typer.Context, as_json: Json = False) -> None:
    """Name every problem at once (exit code 2), and what is probably not meant."""
    from gateway.settings import SettingsError, load

    try:
        settings = load(ctx.obj.config)
    except SettingsError as error:
        if as_json:
            problems = [asdict(problem) for problem in error.problems]
            report({"ok": False, "problems": problems, "warnings": list(error.warnings)}, as_json=True)
            raise typer.Exit(USAGE) from None
        fail(CommandFailed(USAGE, f"the settings cannot be used:\n{error}"), as_json=False)
    if as_json:
        report({"ok": True, "problems": [], "warnings": list(settings.warnings)}, as_json=True)
        return
    for warning in settings.warnings:
        note(f"warning: {warning}")
    typer.echo(f"The settings are fine ({settings.config_dir}).")


@app.command()
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """The merged settings, secrets masked."""
    from gateway.cli.local_api import settings_for
    from gateway.settings import masked

    try:
        settings = masked(settings_for(ctx.obj.config))
    except CommandFailed as failure:
        fail(failure, as_json=as_json)
    if as_json:
        report(settings, as_json=True)
        return
    flat = {f"{section}.{name}": value for section, part in settings.items() for name, value in part.items()}
    report(flat, as_json=False)
