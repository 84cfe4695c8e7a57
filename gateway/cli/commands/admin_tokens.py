"""`pixapi-gateway admin-tokens`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.admin_call import AdminCommand
from gateway.cli.options import After, IdFlag, Json, PageLimit, Yes, fields, one_of, word
from gateway.cli.output import confirm, note

app = typer.Typer(no_args_is_help=True, help="Admin tokens: who may use the admin API and the dashboard.")

Token = Annotated[str | None, typer.Argument(metavar="TOKEN", help="The token's id.", show_default=False)]


@app.command()
def issue(
    ctx: typer.Context,
    name: Annotated[str, typer.Option(help="Whose it is.")],
    role: Annotated[str, word("admin", "viewer", help="admin, or viewer (only reads).")],
    as_json: Json = False,
) -> None:
    """Issue a token; its text is printed once."""
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/admin-tokens", body={"name": name, "role": role}))
    if not as_json:
        note("The token is in the field 'secret'. It is shown this once; keep it.")


@app.command("list")
def page(ctx: typer.Context, limit: PageLimit = None, after: After = None, as_json: Json = False) -> None:
    """List the tokens, newest first."""
    command = AdminCommand(ctx, as_json=as_json)
    answer = command.send("GET", "/admin-tokens", query=fields(limit=limit, after=after))
    columns = ("id", "name", "role", "last4", "last_used_at", "revoked_at", "created_at")
    empty = "No admin tokens yet: pixapi-gateway admin-tokens issue --name me --role admin"
    command.show_page(answer, columns, empty)


@app.command()
def revoke(
    ctx: typer.Context, token: Token = None, id_flag: IdFlag = None, yes: Yes = False, as_json: Json = False
) -> None:
    """End a token and its sessions for good."""
    params = {"id": one_of(token, id_flag, "id")}
    confirm(f"End the admin token {params['id']} for good?", yes=yes)
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/admin-tokens/{id}/revoke", params))
