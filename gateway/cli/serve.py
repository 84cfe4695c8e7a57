"""`pixapi-gateway serve`: settings, schema and price book are checked, then the application is served."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette

from gateway import logs
from gateway.admin.oidc_terms import OidcUnavailableError
from gateway.app import build_app
from gateway.catalog.price_parser import PriceBookError
from gateway.composition import build
from gateway.db import schema
from gateway.server.serve import ServerOptions
from gateway.server.serve import serve as serve_app
from gateway.settings import Settings, load
from gateway.siblings import seat_in
from gateway.tracing import TracingUnavailableError

log = logging.getLogger("gateway.serve")

APPLICATION = "gateway.cli.serve:make_app"
COLLECT_AFTER = 25_000  # objects, some megabytes


def serve(settings: Settings, on_started: Callable[[int], None] | None = None) -> int:
    """Serves until a signal; the exit code: 0 drained, 1 not started or cut short, 2 unusable configuration."""
    logs.configure(settings.log.level, settings.log.format)
    for warning in settings.warnings:
        log.warning("settings", extra={"detail": warning})
    try:
        schema.check(settings.database.url)
    except (schema.SchemaOutdatedError, schema.MigrationError) as error:
        print(f"pixapi-gateway: {error}", file=sys.stderr)
        return 1
    server = settings.server
    options = ServerOptions(
        host=server.host,
        port=server.port,
        workers=server.workers,
        keep_alive=server.keep_alive,
        header_timeout=server.header_timeout,
        stalled_timeout=server.body_idle_timeout,
        drain_seconds=server.drain_seconds,
        factory=server.workers > 1,
    )
    try:
        runtime = build(settings)
    except PriceBookError as error:
        print(f"pixapi-gateway: the price book cannot be used\n{_listed(error)}", file=sys.stderr)
        return 2
    except (OidcUnavailableError, TracingUnavailableError) as error:
        print(f"pixapi-gateway: {error}", file=sys.stderr)
        return 2
    if server.workers == 1:
        return serve_app(_settled(build_app(runtime)), options, on_started or _say_started(settings))
    # Each worker is a new interpreter: it loads the settings of the same folder and environment again.
    os.environ["GATEWAY_CONFIG_DIR"] = str(settings.config_dir)
    return serve_app(APPLICATION, options, on_started or _say_started(settings))


def make_app() -> Starlette:
    """The application of one worker process."""
    settings = load()
    logs.configure(settings.log.level, settings.log.format)
    return _settled(build_app(build(settings, seat=seat_in(os.environ))))


def _settled(app: Starlette) -> Starlette:
    """What is loaded stays until the end, so the collector need not look through it; and requests leave little behind
    that only it can find, so it need not look as often as it would."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 100)
    return app


def shown_address(host: str, port: int) -> str:
    """Where a browser on this machine finds the gateway."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"


def _say_started(settings: Settings) -> Callable[[int], None]:
    def say(port: int) -> None:
        upstream = urlsplit(settings.upstream.base_url).netloc
        log.info("serving", extra={"detail": f"{shown_address(settings.server.host, port)} for {upstream}"})

    return say


def _listed(error: PriceBookError) -> str:
    return "\n".join(f"  {error.path}: {problem}" for problem in error.problems)


def price_book_path(settings: Settings) -> Path:
    """The models.toml these settings use."""
    return settings.config_dir / "models.toml"
