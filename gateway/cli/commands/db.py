"""`pixapi-gateway db`: migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from gateway.cli.options import Json, Yes
from gateway.cli.output import FAILED, CommandFailed, confirm, fail, report, working

app = typer.Typer(no_args_is_help=True, help="The database's schema.")


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
    from gateway.db import migrate

    with _database(ctx, as_json=as_json) as url:
        revision = migrate.current(url)
    report({"revision": revision, "head": migrate.head()}, as_json=as_json)


@contextmanager
def _database(ctx: typer.Context, *, as_json: bool) -> Iterator[str]:
    from gateway.cli.local_api import settings_for
    from gateway.db.migrate import MigrationError

    try:
        yield settings_for(ctx.obj.config).database.url
    except MigrationError as error:
        fail(CommandFailed(FAILED, str(error)), as_json=as_json)
    except CommandFailed as failure:
        fail(failure, as_json=as_json)
