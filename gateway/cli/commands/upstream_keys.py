"""`pixapi-gateway upstream-keys`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.admin_call import AdminCommand
from gateway.cli.options import (
    After,
    IdFlag,
    Json,
    MaxInFlight,
    PageLimit,
    Yes,
    changes,
    fields,
    number,
    one_of,
)
from gateway.cli.output import confirm, read_secret

app = typer.Typer(no_args_is_help=True, help="Upstream keys: the pool the gateway calls Pixapi with.")

Key = Annotated[str | None, typer.Argument(metavar="KEY", help="Id or label.", show_default=False)]
Account = Annotated[str | None, typer.Option(help="Keys of one account read each other's tasks (the label).")]
Weight = Annotated[str | None, typer.Option(help="Share of the calls relative to the others, 1 to 1000 (1).")]


@app.command()
def add(
    ctx: typer.Context,
    label: Annotated[str, typer.Option(help="What it is called here.")],
    account: Account = None,
    weight: Weight = None,
    max_in_flight: MaxInFlight = None,
    as_json: Json = False,
) -> None:
    """Add a Pixapi key; the key itself comes from a prompt or the first line of stdin."""
    body = fields(
        label=label,
        secret=read_secret("Pixapi key"),
        account=account,
        weight=number(weight),
        max_in_flight=number(max_in_flight),
    )
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/upstream-keys", body=body))


@app.command("list")
def page(ctx: typer.Context, limit: PageLimit = None, after: After = None, as_json: Json = False) -> None:
    """List the pool, newest first: states, and the rests in force with their reason."""
    command = AdminCommand(ctx, as_json=as_json)
    answer = command.send("GET", "/upstream-keys", query=fields(limit=limit, after=after))
    key = ("label", "account", "last4", "state", "state_reason", "weight", "max_in_flight")
    rests = ("rest_reason", "paid_rests_until", "reads_rest_until", "next_check_at")
    columns = (*key, *rests, "id")
    empty = "No upstream keys yet: pixapi-gateway upstream-keys add --label main < key.txt"
    command.show_page(answer, columns, empty)


@app.command()
def update(
    ctx: typer.Context,
    key: Key = None,
    id_flag: IdFlag = None,
    label: Annotated[str | None, typer.Option(help="What it is called here.")] = None,
    account: Account = None,
    weight: Weight = None,
    max_in_flight: MaxInFlight = None,
    as_json: Json = False,
) -> None:
    """Change what is given; `--max-in-flight none` takes the limit away."""
    body = changes(
        {"max_in_flight": number(max_in_flight)}, label=label, account=account, weight=number(weight)
    )
    command = AdminCommand(ctx, as_json=as_json)
    params = {"id": one_of(key, id_flag, "id")}
    command.show(command.send("PATCH", "/upstream-keys/{id}", params, body=body))


@app.command()
def drain(ctx: typer.Context, key: Key = None, id_flag: IdFlag = None, as_json: Json = False) -> None:
    """No new paid calls with this key; its tasks are still read."""
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/upstream-keys/{id}/drain", {"id": one_of(key, id_flag, "id")}))


@app.command()
def disable(
    ctx: typer.Context, key: Key = None, id_flag: IdFlag = None, yes: Yes = False, as_json: Json = False
) -> None:
    """No calls at all with this key."""
    params = {"id": one_of(key, id_flag, "id")}
    confirm(f"Stop all calls with the upstream key {params['id']}?", yes=yes)
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/upstream-keys/{id}/disable", params))


@app.command()
def enable(ctx: typer.Context, key: Key = None, id_flag: IdFlag = None, as_json: Json = False) -> None:
    """Use this key again, forgetting its rests."""
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/upstream-keys/{id}/enable", {"id": one_of(key, id_flag, "id")}))


@app.command()
def remove(
    ctx: typer.Context,
    key: Key = None,
    id_flag: IdFlag = None,
    force: Annotated[
        bool, typer.Option("--force", help="Although tasks only it can read have not ended.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take a key out for good; its secret is forgotten."""
    params = {"id": one_of(key, id_flag, "id")}
    confirm(f"Remove the upstream key {params['id']} for good?", yes=yes)
    query = {"force": "true"} if force else {}
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("DELETE", "/upstream-keys/{id}", params, query=query))
