"""`pixapi-gateway keys`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.admin_call import AdminCommand
from gateway.cli.options import (
    KEY_STATES,
    After,
    AllowedAddresses,
    AllowedModels,
    IdFlag,
    Json,
    Key,
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
from gateway.cli.output import confirm, note

app = typer.Typer(no_args_is_help=True, help="Team keys: what a team calls the gateway with.")

ExpiresAt = Annotated[
    str | None, typer.Option(help="When it stops working: ISO 8601 with a zone (default: never).")
]
_ONCE = "The key is in the field 'secret'. It is shown this once; keep it."


@app.command()
def issue(
    ctx: typer.Context,
    team: Annotated[str, typer.Option(help="The team's id or slug.")],
    name: Annotated[str, typer.Option(help="What it is for.")],
    expires_at: ExpiresAt = None,
    allowed_models: AllowedModels = None,
    allowed_addresses: AllowedAddresses = None,
    requests_per_minute: RequestsPerMinute = None,
    max_in_flight: MaxInFlight = None,
    as_json: Json = False,
) -> None:
    """Issue a key; its text is printed once."""
    body = fields(
        name=name,
        expires_at=expires_at,
        allowed_models=names(allowed_models),
        allowed_addresses=names(allowed_addresses),
        requests_per_minute=number(requests_per_minute),
        max_in_flight=number(max_in_flight),
    )
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/teams/{team}/keys", {"team": team}, body=body))
    if not as_json:
        note(_ONCE)


@app.command("list")
def page(
    ctx: typer.Context,
    team: Team = None,
    team_flag: TeamFlag = None,
    state: Annotated[str | None, word(*KEY_STATES, help="active, rotated, expired or revoked.")] = None,
    limit: PageLimit = None,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the keys of one team, or of all, newest first."""
    command = AdminCommand(ctx, as_json=as_json)
    whose = None if team is None and team_flag is None else one_of(team, team_flag, "team")
    query = fields(team=whose, state=state, limit=limit, after=after)
    columns = ("id", "team", "name", "state", "last4", "expires_at", "last_used_at", "created_at")
    empty = f"No keys match: pixapi-gateway keys issue --team {whose or 'SLUG'} --name laptop"
    command.show_page(command.send("GET", "/keys", query=query), columns, empty)


@app.command()
def show(ctx: typer.Context, key: Key = None, id_flag: IdFlag = None, as_json: Json = False) -> None:
    """Show one key, without its text."""
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("GET", "/keys/{id}", {"id": one_of(key, id_flag, "id")}))


@app.command()
def update(
    ctx: typer.Context,
    key: Key = None,
    id_flag: IdFlag = None,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    expires_at: ExpiresAt = None,
    allowed_models: AllowedModels = None,
    allowed_addresses: AllowedAddresses = None,
    requests_per_minute: RequestsPerMinute = None,
    max_in_flight: MaxInFlight = None,
    as_json: Json = False,
) -> None:
    """Change what is given; the word `none` takes a restriction away."""
    body = changes(
        {
            "expires_at": expires_at,
            "allowed_models": names(allowed_models),
            "allowed_addresses": names(allowed_addresses),
            "requests_per_minute": number(requests_per_minute),
            "max_in_flight": number(max_in_flight),
        },
        name=name,
    )
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("PATCH", "/keys/{id}", {"id": one_of(key, id_flag, "id")}, body=body))


@app.command()
def revoke(
    ctx: typer.Context, key: Key = None, id_flag: IdFlag = None, yes: Yes = False, as_json: Json = False
) -> None:
    """End a key for good."""
    params = {"id": one_of(key, id_flag, "id")}
    confirm(f"End the key {params['id']} for good?", yes=yes)
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/keys/{id}/revoke", params))


@app.command()
def rotate(
    ctx: typer.Context,
    key: Key = None,
    id_flag: IdFlag = None,
    overlap_seconds: Annotated[
        str | None, typer.Option(help="How long the old key goes on working (86400); 0 ends it at once.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replace a key by a new one, printed once."""
    body = fields(overlap_seconds=number(overlap_seconds))
    command = AdminCommand(ctx, as_json=as_json)
    params = {"id": one_of(key, id_flag, "id")}
    command.show(command.send("POST", "/keys/{id}/rotate", params, body=body))
    if not as_json:
        note(_ONCE)
