"""`pixapi-gateway secrets`: master keys and peppers, and what still needs the old ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import typer

from gateway.cli.options import Json
from gateway.cli.output import FAILED, CommandFailed, fail, note, report, show_rows, working

if TYPE_CHECKING:
    from collections.abc import Coroutine

app = typer.Typer(
    no_args_is_help=True, help="Master keys and peppers: put a new one to use, retire an old one."
)


@app.command()
def verify(ctx: typer.Context, as_json: Json = False) -> None:
    """Try every stored secret, and say which master keys and peppers are still needed; exit code 1 if one fails."""
    from gateway.cli.secret_rotation import verify

    with working("Opening every stored secret"):
        found = _run(verify(ctx.obj.config), as_json=as_json)
    _show(found, as_json=as_json)


@app.command()
def rotate(ctx: typer.Context, as_json: Json = False) -> None:
    """Bring everything under the first master key, and keys under the first pepper as they are used.

    Put the new secret first and restart every gateway before. Can be run again at any time, also while gateways run.
    """
    from gateway.cli.secret_rotation import rotate

    with working("Sealing anew") as say:
        found = _run(rotate(ctx.obj.config, say), as_json=as_json)
    if not as_json:
        note(f"{found['resealed']} sealed anew under the first master key")
        if found["signing_began"]:
            note("From now on gateways sign keys anew under the first pepper when they are used")
    _show(found, as_json=as_json)


def _run(work: Coroutine[Any, Any, dict[str, Any]], *, as_json: bool) -> dict[str, Any]:
    try:
        return asyncio.run(work)
    except CommandFailed as failure:
        fail(failure, as_json=as_json)


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        report(found, as_json=True)
    else:
        rows = [
            *({"secret": "master key", "opens": one["secrets"]} | one for one in found["master_keys"]),
            *({"secret": "pepper", "opens": None} | one for one in found["peppers"] + found["other_peppers"]),
        ]
        columns = ("secret", "position", "name", "opens", "keys", "admin_tokens")
        show_rows(columns, [dict.fromkeys(columns) | row for row in rows])
        if found["waiting"]:
            show_rows(("kind", "id", "last_used_at"), found["waiting"])
        for sentence in found["advice"]:
            note(sentence)
    if not found["ok"]:
        raise typer.Exit(FAILED)
