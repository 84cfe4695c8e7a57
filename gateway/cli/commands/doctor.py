"""`pixapi-gateway doctor`: whether everything the gateway needs is there."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.output import FAILED, USAGE, note, report, show_rows, working

if TYPE_CHECKING:
    from gateway.settings import SettingsError

COLUMNS = ("check", "state", "found", "advice")


def doctor(
    ctx: typer.Context,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask Pixapi.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print {ok, checks: [...]} as JSON.")] = False,
) -> None:
    """Look at everything the gateway needs and say what to do; exit code 1 when something does not work.

    Settings, database, Redis, every upstream key (by the free model list), clocks, open files, spool folder, prices.
    """
    # All that a gateway consists of is loaded by this command, not by --help.
    from gateway.cli.doctor.doctor import examine
    from gateway.settings import SettingsError, load

    try:
        settings = load(ctx.obj.config)
    except SettingsError as error:
        _print(_problems(error), as_json=as_json)
        raise typer.Exit(USAGE) from None
    with working("Looking at everything") as say:
        findings = asyncio.run(examine(settings, offline=offline, say=say))
    _print([asdict(check) for check in findings.checks], as_json=as_json)
    if not findings.ok:
        raise typer.Exit(FAILED)


def _problems(error: SettingsError) -> list[dict[str, Any]]:
    advice = "correct it; nothing else was looked at"
    return [
        {"name": "settings", "state": "fail", "found": str(problem), "advice": advice}
        for problem in error.problems
    ]


def _print(checks: list[dict[str, Any]], *, as_json: bool) -> None:
    failed = sum(check["state"] == "fail" for check in checks)
    if as_json:
        report({"ok": not failed, "checks": checks}, as_json=True)
        return
    show_rows(COLUMNS, [check | {"check": check["name"]} for check in checks])
    doubtful = sum(check["state"] == "warn" for check in checks)
    well = len(checks) - failed - doubtful
    note(
        f"{well} ok, {doubtful} to look at, {failed} failed" if failed or doubtful else "Everything is fine."
    )
