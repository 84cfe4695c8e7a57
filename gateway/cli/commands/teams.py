"""`pixapi-gateway teams`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.admin_call import AdminCommand
from gateway.cli.options import (
    PERIODS,
    After,
    AllowedModels,
    Json,
    MaxInFlight,
    PageLimit,
    RequestsPerMinute,
    Team,
    TeamFlag,
    Yes,
    changes,
    fields,
    names,
    number,
    one_of,
    word,
)
from gateway.cli.output import confirm

app = typer.Typer(no_args_is_help=True, help="Teams: who the credits belong to.")

Name = Annotated[str, typer.Option(help="What people call it.")]
Slug = Annotated[str | None, typer.Option(help="Its name in paths (default: made from the name).")]
Zone = Annotated[str | None, typer.Option(help="IANA zone its days and months are in (UTC).")]
CostCenter = Annotated[str | None, typer.Option(help="Free text for accounting.")]
Period = Annotated[str | None, word(*PERIODS, help="Of its first quota: day, week, month or total.")]
Limit = Annotated[str | None, typer.Option(help="Of its first quota, in credits.")]


@app.command()
def create(
    ctx: typer.Context,
    name: Name,
    slug: Slug = None,
    time_zone: Zone = None,
    cost_center: CostCenter = None,
    allowed_models: AllowedModels = None,
    requests_per_minute: RequestsPerMinute = None,
    max_in_flight: MaxInFlight = None,
    period: Period = None,
    limit: Limit = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="A team without a quota.")] = False,
    as_json: Json = False,
) -> None:
    """Make a team, with a first quota (--period and --limit) or --unlimited."""
    quota = fields(period=period, limit=number(limit))
    body = fields(
        name=name,
        slug=slug,
        time_zone=time_zone,
        cost_center=cost_center,
        allowed_models=names(allowed_models),
        requests_per_minute=number(requests_per_minute),
        max_in_flight=number(max_in_flight),
        quota=quota or None,
        unlimited=unlimited or None,
    )
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/teams", body=body))


@app.command("list")
def page(ctx: typer.Context, limit: PageLimit = None, after: After = None, as_json: Json = False) -> None:
    """List the teams, newest first."""
    command = AdminCommand(ctx, as_json=as_json)
    answer = command.send("GET", "/teams", query=fields(limit=limit, after=after))
    columns = ("slug", "name", "state", "unlimited", "quotas", "created_at", "id")
    empty = "No teams yet: pixapi-gateway teams create --name Studio --period month --limit 200"
    command.show_page(answer, columns, empty)


@app.command()
def show(ctx: typer.Context, team: Team = None, team_flag: TeamFlag = None, as_json: Json = False) -> None:
    """Show one team."""
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("GET", "/teams/{team}", {"team": one_of(team, team_flag, "team")}))


@app.command()
def update(
    ctx: typer.Context,
    team: Team = None,
    team_flag: TeamFlag = None,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    slug: Annotated[str | None, typer.Option(help="Its name in paths.")] = None,
    time_zone: Zone = None,
    cost_center: CostCenter = None,
    allowed_models: AllowedModels = None,
    requests_per_minute: RequestsPerMinute = None,
    max_in_flight: MaxInFlight = None,
    unlimited: Annotated[
        bool | None, typer.Option("--unlimited/--limited", help="Whether it may have no enforced quota.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change what is given; the word `none` takes a restriction away."""
    body = changes(
        {
            "cost_center": cost_center,
            "allowed_models": names(allowed_models),
            "requests_per_minute": number(requests_per_minute),
            "max_in_flight": number(max_in_flight),
        },
        name=name,
        slug=slug,
        time_zone=time_zone,
        unlimited=unlimited,
    )
    command = AdminCommand(ctx, as_json=as_json)
    params = {"team": one_of(team, team_flag, "team")}
    command.show(command.send("PATCH", "/teams/{team}", params, body=body))


@app.command()
def suspend(
    ctx: typer.Context,
    team: Team = None,
    team_flag: TeamFlag = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Refuse every key of the team until it is resumed."""
    params = {"team": one_of(team, team_flag, "team")}
    confirm(f"Refuse every key of the team {params['team']}?", yes=yes)
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/teams/{team}/suspend", params))


@app.command()
def resume(ctx: typer.Context, team: Team = None, team_flag: TeamFlag = None, as_json: Json = False) -> None:
    """Let the team's keys work again."""
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/teams/{team}/resume", {"team": one_of(team, team_flag, "team")}))
