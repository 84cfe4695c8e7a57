"""`pixapi-gateway serve`, `quickstart` and `sandbox`: the commands that stay until they are stopped."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.sandbox.faults import help_text

Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")]


def serve(
    ctx: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = None,
    port: Port = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port.")] = None,
) -> None:
    """Serve the gateway until SIGTERM or Ctrl-C; paid calls under way are finished first."""
    # Nothing of what is loaded now goes before the end, so the collector never needs to look through it.
    gc.disable()
    from gateway.cli.serve import serve
    from gateway.settings import SettingsError, load

    gc.freeze()
    gc.enable()
    flags = {"server": {"host": host, "port": port, "workers": workers}}
    try:
        settings = load(ctx.obj.config, overrides=flags)
    except SettingsError as error:
        typer.echo(f"The settings cannot be used:\n{error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(serve(settings))


def quickstart(
    ctx: typer.Context,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the databases, secrets and logs.")
    ] = Path(".pixapi-gateway"),
    port: Port = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON when ready.")] = False,
) -> None:
    """Everything on this machine: databases, a simulated Pixapi (or the real one with PIXAPI_KEY), a team, a key."""
    from gateway.cli.quickstart_children import EmbeddedServerError, quickstart_children

    with_sandbox = not _has_pixapi_key()
    try:
        with quickstart_children(data, with_sandbox=with_sandbox) as children:
            # Loaded while the sandbox starts: that takes longer than everything else here.
            from gateway.cli.quickstart import Options, quickstart

            code = quickstart(Options(data, port, as_json, ctx.obj.config), children)
    except EmbeddedServerError as error:
        typer.echo(f"pixapi-gateway: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    raise typer.Exit(code)


def _has_pixapi_key() -> bool:
    """Whether PIXAPI_KEY is set; exits with 2 when it holds something else, such as the README's placeholder."""
    given = os.environ.get("PIXAPI_KEY", "").strip()
    if not given:
        return False
    from gateway.pool.upstream_keys import SECRET

    if not SECRET.fullmatch(given):
        typer.echo(
            "PIXAPI_KEY is not a Pixapi key: it must have 8 to 512 printable ASCII characters without spaces. "
            "Without it the quickstart uses a simulated Pixapi.",
            err=True,
        )
        raise typer.Exit(2)
    return True


def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = 8090,
    speed: Annotated[float, typer.Option(help="10 makes tasks ten times as fast.")] = 1.0,
    sync_seconds: Annotated[float, typer.Option(help="How long a synchronous call takes.")] = 0.05,
    public_url: Annotated[str | None, typer.Option(help="Put before /files/… in answers.")] = None,
) -> None:
    from gateway.sandbox.options import SandboxOptions
    from gateway.sandbox.serve import run

    try:
        options = SandboxOptions(speed, sync_seconds, public_url)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        run(host, port, options)
    except OSError as error:
        typer.echo(f"cannot listen on {host}:{port}: {error.strerror}", err=True)
        raise typer.Exit(1) from error


# "\b" keeps the lines of a paragraph as they are.
sandbox.__doc__ = "A simulated Pixapi that can show every fault of the real one.\n\n" + "\n\n".join(
    f"\b\n{paragraph}" for paragraph in help_text().split("\n\n")
)
