"""`pixapi-gateway tasks` and `pixapi-gateway audit`: what is only read."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.admin_call import AdminCommand
from gateway.cli.options import After, IdFlag, Json, PageLimit, TeamFlag, fields, one_of

tasks = typer.Typer(no_args_is_help=True, help="Tasks: what was submitted, and where it stands.")
audit = typer.Typer(no_args_is_help=True, help="Who changed what.")

Task = Annotated[str | None, typer.Argument(metavar="TASK", help="The task's id.", show_default=False)]


@tasks.command("list")
def task_page(
    ctx: typer.Context,
    team: TeamFlag = None,
    status: Annotated[str | None, typer.Option(help="Only those with this status.")] = None,
    ended: Annotated[
        bool | None, typer.Option("--ended/--unfinished", help="Only those that have (not) ended.")
    ] = None,
    limit: PageLimit = None,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the tasks, newest first."""
    wanted = None if ended is None else str(ended).lower()
    query = fields(team=team, status=status, ended=wanted, limit=limit, after=after)
    command = AdminCommand(ctx, as_json=as_json)
    columns = ("id", "team", "model", "operation", "status", "credits_cost", "created_at", "ended_at")
    empty = "No tasks match: one is made by each call of /v1/async/…."
    command.show_page(command.send("GET", "/tasks", query=query), columns, empty)


@tasks.command("show")
def task_show(ctx: typer.Context, task: Task = None, id_flag: IdFlag = None, as_json: Json = False) -> None:
    """Show one task."""
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("GET", "/tasks/{id}", {"id": one_of(task, id_flag, "id")}))


@audit.command("list")
def audit_page(
    ctx: typer.Context,
    subject_type: Annotated[
        str | None, typer.Option(help="team, key, hold, upstream-key, admin-token, pepper, …")
    ] = None,
    subject_id: Annotated[str | None, typer.Option(help="Of one subject; with --subject-type.")] = None,
    actor: Annotated[str | None, typer.Option(help="By one: admin-token:…, cli:…, gateway.")] = None,
    action: Annotated[str | None, typer.Option(help="Of one kind, such as key.revoke.")] = None,
    team: TeamFlag = None,
    limit: PageLimit = None,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the changes, newest first."""
    query = fields(
        subject_type=subject_type,
        subject_id=subject_id,
        actor=actor,
        action=action,
        team=team,
        limit=limit,
        after=after,
    )
    command = AdminCommand(ctx, as_json=as_json)
    columns = ("made_at", "actor", "action", "subject_type", "subject_id", "detail")
    empty = "No changes match: the first one is written by the first command that changes something."
    command.show_page(command.send("GET", "/audit", query=query), columns, empty)
