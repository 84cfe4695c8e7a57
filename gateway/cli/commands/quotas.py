"""`pixapi-gateway quotas`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.admin_call import AdminCommand
from gateway.cli.options import PERIODS, Json, TeamFlag, Yes, number, word
from gateway.cli.output import confirm

app = typer.Typer(no_args_is_help=True, help="Quotas: what a team or a key may spend.")

KeyFlag = Annotated[str | None, typer.Option("--key", help="Instead of --team: one key's public id.")]
Period = Annotated[str, word(*PERIODS, help="day, week, month or total.")]


@app.command("set")
def put(
    ctx: typer.Context,
    period: Period,
    limit: Annotated[str, typer.Option(help="In credits.")],
    team: TeamFlag = None,
    key: KeyFlag = None,
    enforce: Annotated[
        bool, typer.Option("--enforce/--no-enforce", help="Refuse calls beyond it, or only count them.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Set a quota, or change its limit."""
    path, params = _owner(team, key)
    body = {"limit": number(limit), "enforce": enforce}
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("PUT", f"{path}/{{period}}", params | {"period": period}, body=body))


@app.command("list")
def page(ctx: typer.Context, team: TeamFlag = None, key: KeyFlag = None, as_json: Json = False) -> None:
    """List the quotas of a team or a key."""
    path, params = _owner(team, key)
    command = AdminCommand(ctx, as_json=as_json)
    columns = ("scope", "period", "limit", "enforce", "updated_at")
    owner = f"--team {team}" if team is not None else f"--key {key}"
    empty = f"No quotas: pixapi-gateway quotas set {owner} --period month --limit 100"
    command.show_page(command.send("GET", path, params), columns, empty)


@app.command()
def remove(
    ctx: typer.Context,
    period: Period,
    team: TeamFlag = None,
    key: KeyFlag = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Remove a quota, with what it has counted."""
    path, params = _owner(team, key)
    confirm(f"Remove the {period} quota of {team or key}?", yes=yes)
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("DELETE", f"{path}/{{period}}", params | {"period": period}))


def _owner(team: str | None, key: str | None) -> tuple[str, dict[str, str]]:
    if (team is None) == (key is None):
        raise typer.BadParameter("whose quota? Give either --team or --key")
    if team is not None:
        return "/teams/{team}/quotas", {"team": team}
    return "/keys/{id}/quotas", {"id": key or ""}
