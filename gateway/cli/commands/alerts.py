"""`pixapi-gateway alerts`, `webhooks` and `deliveries`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.admin_call import AdminCommand
from gateway.cli.options import After, IdFlag, Json, PageLimit, Yes, changes, fields, names, one_of
from gateway.cli.output import confirm, note

alerts = typer.Typer(no_args_is_help=True, help="Alerts: what people should know of.")
webhooks = typer.Typer(no_args_is_help=True, help="Webhooks: where alerts are sent.")
deliveries = typer.Typer(
    no_args_is_help=True, help="Deliveries: what was sent to webhooks, and what came back."
)

Webhook = Annotated[
    str | None, typer.Argument(metavar="WEBHOOK", help="The webhook's id.", show_default=False)
]
Delivery = Annotated[
    str | None, typer.Argument(metavar="DELIVERY", help="The delivery's id.", show_default=False)
]
Url = Annotated[str | None, typer.Option(help="The address it is posted to.")]
Format = Annotated[str | None, typer.Option("--format", help="standard (Standard Webhooks), or slack.")]
Kinds = Annotated[str | None, typer.Option(help="Kinds of alerts: a,b (default: all); none takes it back.")]


@alerts.command("list")
def page_alerts(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="open or resolved.")] = None,
    limit: PageLimit = None,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the alerts, newest first."""
    command = AdminCommand(ctx, as_json=as_json)
    answer = command.send("GET", "/alerts", query=fields(state=state, limit=limit, after=after))
    command.show_page(answer, ("raised_at", "severity", "kind", "summary", "resolved_at", "id"))


@webhooks.command()
def add(
    ctx: typer.Context,
    url: Annotated[str, typer.Option(help="The address alerts are posted to.")],
    format_: Format = None,
    kinds: Kinds = None,
    as_json: Json = False,
) -> None:
    """Add a webhook; the secret its messages are signed with is printed once."""
    body = fields(url=url, format=format_, kinds=names(kinds))
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/webhooks", body=body))
    if not as_json:
        note("The secret messages are signed with is in the field 'secret'. It is shown this once; keep it.")


@webhooks.command("list")
def page_webhooks(
    ctx: typer.Context, limit: PageLimit = None, after: After = None, as_json: Json = False
) -> None:
    """List the webhooks, newest first."""
    command = AdminCommand(ctx, as_json=as_json)
    answer = command.send("GET", "/webhooks", query=fields(limit=limit, after=after))
    command.show_page(answer, ("url", "format", "kinds", "enabled", "disabled_reason", "created_at", "id"))


@webhooks.command()
def update(
    ctx: typer.Context,
    webhook: Webhook = None,
    id_flag: IdFlag = None,
    url: Url = None,
    format_: Format = None,
    kinds: Kinds = None,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Whether it is sent to.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change what is given; `--kinds none` sends every kind again."""
    body = changes({"kinds": names(kinds)}, url=url, format=format_, enabled=enabled)
    command = AdminCommand(ctx, as_json=as_json)
    params = {"id": one_of(webhook, id_flag, "id")}
    command.show(command.send("PATCH", "/webhooks/{id}", params, body=body))


@webhooks.command("test")
def send_test(
    ctx: typer.Context, webhook: Webhook = None, id_flag: IdFlag = None, as_json: Json = False
) -> None:
    """Send a test message, by a gateway that runs; `deliveries list` shows what became of it."""
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("POST", "/webhooks/{id}/test", {"id": one_of(webhook, id_flag, "id")}))


@webhooks.command()
def remove(
    ctx: typer.Context,
    webhook: Webhook = None,
    id_flag: IdFlag = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take a webhook out for good, its deliveries with it."""
    params = {"id": one_of(webhook, id_flag, "id")}
    confirm(f"Remove the webhook {params['id']} and its deliveries for good?", yes=yes)
    command = AdminCommand(ctx, as_json=as_json)
    command.show(command.send("DELETE", "/webhooks/{id}", params))


@deliveries.command("list")
def page_deliveries(
    ctx: typer.Context,
    webhook: Annotated[str | None, typer.Option(help="Of one webhook, by its id.")] = None,
    state: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    limit: PageLimit = None,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the deliveries, newest first."""
    command = AdminCommand(ctx, as_json=as_json)
    query = fields(webhook=webhook, state=state, limit=limit, after=after)
    answer = command.send("GET", "/alert-deliveries", query=query)
    told = ("created_at", "event", "state", "tries", "last_status", "last_error", "next_try_at")
    command.show_page(answer, (*told, "webhook_id", "id"))


@deliveries.command()
def redeliver(
    ctx: typer.Context, delivery: Delivery = None, id_flag: IdFlag = None, as_json: Json = False
) -> None:
    """Send a message once more, under its old id, by a gateway that runs."""
    command = AdminCommand(ctx, as_json=as_json)
    params = {"id": one_of(delivery, id_flag, "id")}
    command.show(command.send("POST", "/alert-deliveries/{id}/redeliver", params))
