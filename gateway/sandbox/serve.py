"""Running the sandbox over a socket: `run` in this thread, `open_server` for a server of one's own."""

import asyncio
import socket

import uvicorn
import uvloop

from gateway.sandbox.app import create_app
from gateway.sandbox.connection import SandboxProtocol
from gateway.sandbox.options import SandboxOptions

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75


def run(host: str = "127.0.0.1", port: int = 0, options: SandboxOptions | None = None) -> None:
    """Serve until SIGINT or SIGTERM. Port 0 picks a free port.

    Prints one line when ready: `Pixapi sandbox ready on http://HOST:PORT`. Raises OSError when the port is taken.
    """
    listener = open_socket(host, port)
    server = open_server(options)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(server, listener))


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; connections made from now on wait for the server. Raises OSError."""
    return socket.create_server((host, port), family=_family(host), backlog=_BACKLOG)


def open_server(options: SandboxOptions | None = None) -> uvicorn.Server:
    """A uvicorn server for a fresh sandbox: `await server.serve(sockets=[…])`, end it by `should_exit`."""
    config = uvicorn.Config(
        create_app(options),
        http=SandboxProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        log_level="error",
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def address(listener: socket.socket) -> str:
    """The base URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    # The socket listens already, so a client that reads this line can connect at once.
    print(f"Pixapi sandbox ready on {address(listener)}", flush=True)  # noqa: T201 - the one line promised
    await serving


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
