"""`pixapi-gateway ledger`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.cli.admin_call import AdminCommand
from gateway.cli.options import Json
from gateway.cli.output import FAILED, note, plain, show_rows, working

app = typer.Typer(no_args_is_help=True, help="The ledger: whether every credit is accounted for.")


@app.callback()
def ledger() -> None:
    """A noun with one verb stays a noun."""


@app.command()
def verify(
    ctx: typer.Context,
    repair: Annotated[
        bool, typer.Option("--repair", help="First rebuild counters and usage from entries and holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare entries, counters, holds, usage and task costs; exit code 1 when they differ."""
    command = AdminCommand(ctx, as_json=as_json)
    with working("Comparing every hold, entry and counter"):
        answer = command.send("POST", "/ledger/repair") if repair else command.send("GET", "/ledger/verify")
    if not command.printed_as_json(answer):
        _show(answer, repair=repair)
    if not answer.ok:
        raise typer.Exit(FAILED)


def _show(answer: Any, *, repair: bool) -> None:
    if repair:
        note(f"repaired: {plain(_fields(answer.repaired))}")
    if answer.differences:
        show_rows(("kind", "subject", "expected", "found"), [_fields(one) for one in answer.differences])
    verdict = "everything agrees" if answer.ok else "there are differences"
    note(f"{verdict}; compared: {plain(_fields(answer.checked))}")


def _fields(answer: Any) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in answer.__struct_fields__}
