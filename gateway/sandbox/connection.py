"""Access to the TCP connection under a request, for faults that no HTTP answer can express."""

import asyncio
import os
import socket
import struct

from starlette.types import Receive, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "sandbox.connection"
_LINGER_ZERO = struct.pack("ii", 1, 0)
_FLUSH_SECONDS = 30.0
_FLUSH_POLL = 0.002


class SandboxProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with its transport put into the ASGI scope under `extensions`."""

    def on_message_begin(self) -> None:
        """Start a request and let the application reach its connection."""
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: {"transport": self.transport}}


async def reset(scope: Scope, receive: Receive) -> None:
    """End the connection with a TCP reset, after what was already written has left."""
    transport = _transport(scope)
    await _flush(transport)
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    with socket.socket(fileno=descriptor) as same_connection:
        same_connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    transport.abort()
    await wait_for_disconnect(receive)


async def close(scope: Scope, receive: Receive) -> None:
    """End the connection in order (FIN), after what was already written has left."""
    transport = _transport(scope)
    await _flush(transport)
    transport.close()
    await wait_for_disconnect(receive)


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the connection is gone, so that the server does not answer in our place."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _transport(scope: Scope) -> asyncio.Transport:
    extension = scope.get("extensions", {}).get(_EXTENSION)
    if extension is None:
        raise RuntimeError("this fault needs the sandbox's own server (gateway.sandbox.serve)")
    transport: asyncio.Transport = extension["transport"]
    return transport


async def _flush(transport: asyncio.Transport) -> None:
    deadline = asyncio.get_running_loop().time() + _FLUSH_SECONDS
    # A transport does not say when its buffer is empty to anyone but its protocol.
    while transport.get_write_buffer_size() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_FLUSH_POLL)
