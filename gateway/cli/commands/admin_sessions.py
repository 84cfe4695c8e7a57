"""`pixapi-gateway admin-sessions`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.admin_call import AdminCommand
from gateway.cli.options import After, IdFlag, Json, PageLimit, Yes, fields, one_of
from gateway.cli.output import confirm

app = typer.Typer(no_args_is_help=True, help="Sessions: who is signed in to the dashboard.")

Session = Annotated[
    str | None, typer.Argument(metavar="SESSION", help="The session's id.", show_default=False)
]
COLUMNS = ("id", "subject", "name", "role", "created_at", "last_seen_at")


@app.command("list")
def page(
    ctx: typer.Context,
    subject: Annotated[
        str | None, typer.Option(help="Of one: oidc:…, admin-token:… or bootstrap, as the audit says.")
    ] = None,
    limit: PageLimit = None,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the sessions that are alive, newest first."""
    command = AdminCommand(ctx, as_json=as_json)
    answer = command.send("GET", "/sessions", query=fields(subject=subject, limit=limit, after=after))
    command.show_page(answer, COLUMNS, "Nobody is signed in.")


@app.command()
def end(
    ctx: typer.Context,
    session: Session = None,
    id_flag: IdFlag = None,
    subject: Annotated[
        str | None,
        typer.Option(help="In place of an id: every session of oidc:…, admin-token:… or bootstrap."),
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """End a session, or every one of a person or token, in every process at once."""
    command = AdminCommand(ctx, as_json=as_json)
    if subject is None:
        params = {"id": one_of(session, id_flag, "id")}
        confirm(f"End the session {params['id']}?", yes=yes)
        command.show(command.send("POST", "/sessions/{id}/end", params))
        return
    if session is not None or id_flag is not None:
        raise typer.BadParameter("give either a session or --subject")
    confirm(f"End every session of {subject}?", yes=yes)
    answer = command.send("POST", "/sessions/end", body={"subject": subject})
    command.show_page(answer, COLUMNS, f"{subject} has no session.")
