"""`pixapi-gateway usage`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from gateway.cli.admin_call import AdminCommand
from gateway.cli.options import Json, TeamFlag, fields, word
from gateway.cli.output import note, show_rows

GROUPS = ("team", "key", "model", "operation", "day")
SUMS = ("requests", "failed", "credits", "estimated_credits", "shadow_refused")

From = Annotated[
    str | None,
    typer.Option("--from", help="A date (each team's own day) or a time; default: this month, in UTC."),
]
To = Annotated[str | None, typer.Option("--to", help="The same, exclusive; default: now.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV with a line of totals.")]


def usage(
    ctx: typer.Context,
    by: Annotated[
        str | None,
        word(*GROUPS, help="team, key, model, operation, day: one or several (team).", several=True),
    ] = None,
    start: From = None,
    end: To = None,
    team: TeamFlag = None,
    as_csv: Csv = False,
    as_json: Json = False,
) -> None:
    """Show what was used, with totals."""
    if as_csv and as_json:
        raise typer.BadParameter("give either --csv or --json")
    query = fields(by=by, team=team, format="csv" if as_csv else None)
    query |= {name: value for name, value in (("from", start), ("to", end)) if value is not None}
    command = AdminCommand(ctx, as_json=as_json)
    answer = command.send("GET", "/usage", query=query)
    if as_csv:
        sys.stdout.write(answer.text)
        return
    if command.printed_as_json(answer):
        return
    names = [name for name in answer.by for name in (("team", "team_id") if name == "team" else (name,))]
    rows = [_row(row, [*names, *SUMS]) for row in answer.data]
    totals = dict.fromkeys(names, "") | _row(answer.totals, SUMS)
    totals[names[0]] = "total"
    show_rows([*names, *SUMS], [*rows, totals])
    note(f"from {answer.start} to {answer.end}")
    if not answer.data:
        note("Nothing was used then: other days are given by --from and --to.")


def _row(found: Any, names: Any) -> dict[str, Any]:
    return {name: getattr(found, name) for name in names}
