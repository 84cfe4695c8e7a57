"""Serving the gateway: one process, or several on one socket. Imported by `gateway.cli` alone."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

import uvicorn
from starlette.types import ASGIApp

from gateway.server.acceptor import bind_sockets
from gateway.server.draining import DrainingServer
from gateway.server.protocol import protocol_class
from gateway.server.signals import ENDING
from gateway.server.workers import Workers, report_up
from gateway.siblings import SEAT

BACKLOG = 2048
LONGEST_PLACE = 60

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve; times in seconds. `factory`: the application is a function without arguments that makes it."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    keep_alive: float = 75
    header_timeout: float = 10
    stalled_timeout: float = 30
    drain_seconds: float = 620
    factory: bool = False


def serve(
    app: str | ASGIApp | Callable[[], ASGIApp],
    options: ServerOptions,
    on_started: Callable[[int], None] | None = None,
) -> int:
    """Serve `app` until SIGTERM, SIGINT or SIGHUP; `on_started(port)` is called when connections are being accepted.

    Returns the exit code: 0 after a drain, 1 when the start failed (the reason is logged) or a second signal cut it
    short. More than one worker needs `app` as `"module:name"`, since each process imports it.
    """
    if options.workers > 1 and not isinstance(app, str):
        raise ValueError("several workers need the application as 'module:name'")
    _raise_file_limit()
    try:
        sockets = bind_sockets(options.host, options.port)
    except OSError as failure:
        logger.error(_why_not_bound(options, failure))
        return 1
    port = sockets[0].getsockname()[1]
    started = partial(on_started, port) if on_started else None
    if options.workers == 1:
        return _serve_here(app, options, sockets, ENDING, started)
    try:
        with meeting_place() as folder:
            target = partial(_serve_as_worker, str(app), options, sockets, folder)
            return Workers(target, options.workers, options.drain_seconds).run(started)
    finally:
        for listener in sockets:
            listener.close()


@contextmanager
def meeting_place() -> Iterator[str]:
    """A folder for the workers' sockets that only this user may enter, gone afterwards."""
    usual = tempfile.gettempdir()
    # The path of a Unix socket has room for about 100 bytes.
    place = usual if len(os.fsencode(usual)) <= LONGEST_PLACE else "/tmp"  # noqa: S108
    with tempfile.TemporaryDirectory(
        prefix="pixapi-gateway-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        yield folder


def _serve_here(
    app: str | ASGIApp | Callable[[], ASGIApp],
    options: ServerOptions,
    sockets: list[socket.socket],
    signals: tuple[signal.Signals, ...],
    on_started: Callable[[], None] | None,
) -> int:
    config = uvicorn.Config(
        app,
        factory=options.factory,
        http=protocol_class(options.header_timeout, options.stalled_timeout),
        ws="none",
        lifespan="on",
        interface="asgi3",
        workers=1,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=BACKLOG,
        timeout_keep_alive=options.keep_alive,  # type: ignore[arg-type] # any number of seconds will do
    )
    return DrainingServer(config, options.drain_seconds, on_started).run_to_end(sockets, signals)


def _serve_as_worker(
    app: str, options: ServerOptions, sockets: list[socket.socket], folder: str, number: int, pipe: Connection
) -> None:
    os.environ[SEAT] = f"{number}:{options.workers}:{folder}"
    # A terminal sends them to all; the parent passes on what counts.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(_serve_here(app, options, sockets, (signal.SIGTERM,), partial(report_up, pipe)))


def _raise_file_limit() -> None:
    """As many open files as the system allows: a paid call in flight holds two sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        logger.warning("the limit of open files stays at %s", soft)


def _why_not_bound(options: ServerOptions, failure: OSError) -> str:
    place = f"port {options.port} of {options.host or 'this machine'}"
    if isinstance(failure, socket.gaierror):
        return f"Cannot serve on host {options.host!r}: {failure.strerror}. Choose another one with --host."
    if failure.errno == errno.EADDRINUSE:
        return f"Cannot serve on {place}: another program uses it. Choose another port with --port."
    if failure.errno == errno.EACCES:
        return f"Cannot serve on {place}: this user may not. Choose a port from 1024 on with --port."
    return f"Cannot serve on {place}: {failure.strerror}. Choose another one with --host and --port."
