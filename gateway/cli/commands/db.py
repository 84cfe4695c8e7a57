"""`pixapi-gateway db`: migrations."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from gateway.cli.options import Json, Yes
from gateway.cli.output import (
    FAILED,
    CommandFailed,
    UsageProblem,
    confirm,
    confirm_by_typing,
    fail,
    note,
    report,
    show_rows,
    working,
)

app = typer.Typer(no_args_is_help=True, help="The database's schema, and how much of the past it keeps.")
COLUMNS = ("month", "holds", "entries", "attempts", "tasks", "records", "settled")
Result = TypeVar("Result")


@app.command()
def upgrade(ctx: typer.Context, as_json: Json = False) -> None:
    """Bring the schema up to this release; nothing happens when it is there already."""
    from gateway.db import migrate

    with _database(ctx, as_json=as_json) as url, working("Migrating"):
        before, after = migrate.upgrade(url)
    report({"before": before, "after": after}, as_json=as_json)


@app.command()
def downgrade(
    ctx: typer.Context,
    revision: Annotated[str, typer.Option(help="The revision to go back to (default: one step).")] = "-1",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take the schema back; what only the newer one can hold is lost."""
    from gateway.db import migrate

    confirm("Take the schema back? Data that only the newer one can hold is lost.", yes=yes)
    with _database(ctx, as_json=as_json) as url, working("Migrating"):
        before, after = migrate.downgrade(url, revision)
    report({"before": before, "after": after}, as_json=as_json)


@app.command()
def current(ctx: typer.Context, as_json: Json = False) -> None:
    """The schema's revision, and the one this release is written for."""
    from gateway.db import schema

    with _database(ctx, as_json=as_json) as url:
        revision = schema.current(url)
    report({"revision": revision, "head": schema.head()}, as_json=as_json)


@app.command()
def prune(
    ctx: typer.Context,
    before: Annotated[
        str, typer.Option(help="Months that ended by this day go: 2026-08-01, or 2026-08; in UTC.")
    ],
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write what goes into this folder first.")
    ] = None,
    no_export: Annotated[
        bool, typer.Option("--no-export", help="Write nothing: it is gone for good.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and what is in the way.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take whole months of holds, entries, sends and tasks out of the database; their sums stay.

    Can be stopped at any moment and run again, also while gateways run. Reports, quotas and the proof stay as they are.
    """
    from gateway.cli import pruning

    day = _day(before)
    if not dry_run and (export is None) != no_export:
        raise UsageProblem("where does what goes go? Give --export DIR, or --no-export.")
    with working("Looking at the months") as say:
        months = _run(pruning.plan(ctx.obj.config, day, say), as_json=as_json)
    if dry_run:
        _show_months({"ok": not any(one["in_the_way"] for one in months), "months": months}, as_json=as_json)
        return
    if months:
        question = f"{pruning.names(months)}: {sum(one['holds'] for one in months)} holds go for good."
        confirm_by_typing(question, months[-1]["month"], yes=yes)
    with working("Pruning") as say:
        done = _run(pruning.prune(ctx.obj.config, day, export, say), as_json=as_json)
    _show_months(done, as_json=as_json)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text if len(text) > 7 else f"{text}-01")
    except ValueError:
        raise UsageProblem(
            f"--before: {text} is no day such as 2026-08-01 and no month such as 2026-08."
        ) from None


def _run(work: Coroutine[Any, Any, Result], *, as_json: bool) -> Result:
    try:
        return asyncio.run(work)
    except CommandFailed as failure:
        fail(failure, as_json=as_json)


def _show_months(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        report(found, as_json=True)
        return
    if not found["months"]:
        note("There is no month before that.")
        return
    show_rows(COLUMNS, found["months"])
    for one in found["months"]:
        for obstacle in one.get("in_the_way", ()):
            note(f"{one['month']}: {obstacle}")


@contextmanager
def _database(ctx: typer.Context, *, as_json: bool) -> Iterator[str]:
    from gateway.cli.local_api import settings_for
    from gateway.db.schema import MigrationError

    try:
        yield settings_for(ctx.obj.config).database.url
    except MigrationError as error:
        fail(CommandFailed(FAILED, str(error)), as_json=as_json)
    except CommandFailed as failure:
        fail(failure, as_json=as_json)
