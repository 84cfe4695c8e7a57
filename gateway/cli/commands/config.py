"""`pixapi-gateway config`: the settings of this process."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gateway.cli.options import Json
from gateway.cli.output import USAGE, CommandFailed, fail, note, report

if TYPE_CHECKING:
    from gateway.settings import Problem

app = typer.Typer(no_args_is_help=True, help="The settings: gateway.toml and GATEWAY_… variables, merged.")


@app.command()
def check(ctx: typer.Context, as_json: Json = False) -> None:
    """Name every problem of settings and price book at once (exit code 2), and what is probably not meant."""
    problems, warnings, folder = _looked_through(ctx.obj.config)
    if as_json:
        found = [asdict(problem) for problem in problems]
        report({"ok": not problems, "problems": found, "warnings": warnings}, as_json=True)
    elif problems:
        lines = "\n".join([*map(str, problems), *(f"warning: {warning}" for warning in warnings)])
        fail(CommandFailed(USAGE, f"the configuration cannot be used:\n{lines}"), as_json=False)
    else:
        for warning in warnings:
            note(f"warning: {warning}")
        typer.echo(f"Settings and price book are fine ({folder}).")
    if problems:
        raise typer.Exit(USAGE)


def _looked_through(config_dir: Path | None) -> tuple[list[Problem], list[str], Path | None]:
    """Every problem of gateway.toml, the environment and models.toml; every warning; the folder they are in."""
    from gateway.catalog.price_file import load as load_prices
    from gateway.catalog.price_parser import PriceBookError
    from gateway.settings import Problem, SettingsError, find_config_dir, load

    problems: list[Problem] = []
    warnings: list[str] = []
    folder = None
    try:
        settings = load(config_dir)
        folder, warnings = settings.config_dir, list(settings.warnings)
    except SettingsError as error:
        problems, warnings = list(error.problems), list(error.warnings)
        with suppress(SettingsError):  # it is among the problems already
            folder = find_config_dir(config_dir, os.environ)
    if folder is not None:
        try:
            load_prices(folder / "models.toml")
        except PriceBookError as error:
            problems += [Problem("models.toml", f"file {error.path}", what) for what in error.problems]
    return problems, warnings, folder


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
