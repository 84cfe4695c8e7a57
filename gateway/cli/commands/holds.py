"""`pixapi-gateway holds`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.admin_call import AdminCommand
from gateway.cli.options import (
    HOLD_STATES,
    After,
    IdFlag,
    Json,
    PageLimit,
    PlacedFrom,
    PlacedTo,
    TeamFlag,
    Yes,
    fields,
    number,
    one_of,
    word,
)
from gateway.cli.output import confirm

app = typer.Typer(no_args_is_help=True, help="Holds: credits set aside for a call, until it has ended.")

Hold = Annotated[str | None, typer.Argument(metavar="HOLD", help="The hold's id.", show_default=False)]
COLUMNS = ("id", "state", "team", "key", "model", "quote", "settled", "flags", "created_at", "reason")


@app.command("list")
def page(
    ctx: typer.Context,
    state: Annotated[str | None, word(*HOLD_STATES, help="held, unknown, settled or released.")] = None,
    team: TeamFlag = None,
    key: Annotated[str | None, typer.Option(help="One key's public id.")] = None,
    model: Annotated[str | None, typer.Option(help="One model.")] = None,
    request_id: Annotated[str | None, typer.Option(help="The x-request-id of a call.")] = None,
    start: PlacedFrom = None,
    end: PlacedTo = None,
    limit: PageLimit = None,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the holds, newest first."""
    query = fields(
        state=state, team=team, key=key, model=model, request_id=request_id, limit=limit, after=after
    ) | fields(**{"from": start, "to": end})
    command = AdminCommand(ctx, as_json=as_json)
    empty = "No holds match: one is placed with each paid call."
    command.show_page(command.send("GET", "/holds", query=query), COLUMNS, empty)


@app.command()
def show(ctx: typer.Context, hold: Hold = None, id_flag: IdFlag = None, as_json: Json = False) -> None:
    """Show one hold."""
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("GET", "/holds/{id}", {"id": one_of(hold, id_flag, "id")}))


@app.command()
def resolve(
    ctx: typer.Context,
    outcome: Annotated[
        str, word("settle", "release", help="settle: Pixapi has charged it. release: it has not.")
    ],
    reason: Annotated[str, typer.Option(help="Why; kept with the hold and in the audit log.")],
    hold: Hold = None,
    credits_: Annotated[
        str | None, typer.Option("--credits", help="What it cost (default: the quote).")
    ] = None,
    id_flag: IdFlag = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """End an unknown hold, for good."""
    hold_id = one_of(hold, id_flag, "id")
    confirm(f"{outcome.capitalize()} the hold {hold_id}? It cannot be undone.", yes=yes)
    body = fields(outcome=outcome, credits=number(credits_), reason=reason)
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/holds/{id}/resolve", {"id": hold_id}, body=body))
