"""`pixapi-gateway requests`: paid calls with their sends, and what became of any request id."""

from __future__ import annotations

from typing import Annotated, Any

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
    fields,
    one_of,
    word,
)
from gateway.cli.output import note, show_rows

app = typer.Typer(
    no_args_is_help=True, help="Requests: paid calls with their sends, and why one was refused."
)

Request = Annotated[
    str | None, typer.Argument(metavar="ID", help="The x-request-id of an answer.", show_default=False)
]
COLUMNS = ("request_id", "state", "team", "key", "model", "quote", "settled", "flags", "sends", "created_at")
STEPS = ("at", "step", "outcome", "detail")


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
    """List the calls that got a hold with their sends, newest first."""
    query = fields(
        state=state, team=team, key=key, model=model, request_id=request_id, limit=limit, after=after
    ) | fields(**{"from": start, "to": end})
    command = AdminCommand(ctx, as_json=as_json)
    answer = command.send("GET", "/requests", query=query)
    if command.printed_as_json(answer):
        return
    show_rows(COLUMNS, [_row(call) for call in answer.data])
    if not answer.data:
        note("No requests match: refused ones are told of by 'pixapi-gateway requests explain ID'.")
    if answer.has_more:
        note(f"There are more: repeat the command with --after {answer.next}")


@app.command()
def explain(
    ctx: typer.Context, request: Request = None, id_flag: IdFlag = None, as_json: Json = False
) -> None:
    """Tell what happened to a request, in order, and what to do; refusals are kept for a day."""
    request_id = one_of(request, id_flag, "id")
    command = AdminCommand(ctx, as_json=as_json)
    answer = command.send("GET", "/requests/{request_id}/explain", {"request_id": request_id})
    if command.printed_as_json(answer):
        return
    for number, story in enumerate((answer, *answer.earlier)):
        if number:
            typer.echo(f"\nAn earlier request with the same id ({number} of {len(answer.earlier)}):")
        typer.echo(story.summary)
        show_rows(STEPS, [{name: getattr(step, name) for name in STEPS} for step in story.steps])


def _row(call: Any) -> dict[str, Any]:
    sends = [f"{sent.upstream_key or sent.upstream_key_id} {sent.outcome}" for sent in call.attempts]
    return {name: getattr(call, name) for name in COLUMNS if name != "sends"} | {"sends": sends}
