"""The sandbox's whole route table. Start here."""

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox import control, files, reads
from gateway.sandbox.answers import json_response
from gateway.sandbox.errors import SandboxError, numeric
from gateway.sandbox.generations import generation
from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.world import World

_ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE"]

ROUTES = [
    Route("/v1/images/generations", generation("generations", background=False), methods=["POST"]),
    Route("/v1/images/edits", generation("edits", background=False), methods=["POST"]),
    Route("/v1/async/images/generations", generation("generations", background=True), methods=["POST"]),
    Route("/v1/async/images/edits", generation("edits", background=True), methods=["POST"]),
    Route("/v1/async/videos/generations", generation("videos", background=True), methods=["POST"]),
    Route("/v1/tasks/{id}", reads.read_task, methods=["GET"]),
    Route("/v1/models", reads.list_models, methods=["GET"]),
    Route("/v1/{rest:path}", reads.nowhere, methods=_ANY_METHOD),
    Route("/files/{name}", files.read_file, methods=["GET"]),
    Route("/sandbox/state", control.state, methods=["GET"]),
    Route("/sandbox/journal", control.journal, methods=["GET"]),
    Route("/sandbox/counters", control.counters, methods=["GET"]),
    Route("/sandbox/reset", control.reset, methods=["POST"]),
    Route("/sandbox/faults", control.arm, methods=["POST"]),
    Route("/sandbox/faults", control.disarm, methods=["DELETE"]),
    Route("/sandbox/accounts/{name}", control.change_account, methods=["POST"]),
    Route("/sandbox/keys/revoke", control.revoke_key, methods=["POST"]),
    Route("/sandbox/keys/restore", control.restore_key, methods=["POST"]),
    Route("/sandbox/tasks/{id}/end", control.end_task, methods=["POST"]),
]


def create_app(options: SandboxOptions | None = None) -> Starlette:
    """A simulated Pixapi with a fresh world, at `app.state.world`.

    Faults that act on the TCP connection (reset, cut, half_body, hang) need the server of `serve`.
    """
    app = Starlette(
        routes=ROUTES,
        exception_handlers={
            SandboxError: _refused,
            HTTPException: _http_error,
            ClientDisconnect: _client_left,
            msgspec.DecodeError: _bad_control_body,
        },
    )
    app.state.world = World(options or SandboxOptions())
    return app


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, SandboxError):
        raise error
    entry = getattr(request.state, "entry", None)
    if entry is not None:
        entry.status = error.status
    return json_response(error.status, error.body())


async def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return json_response(error.status_code, numeric(error.status_code, error.detail))


async def _client_left(_: Request, __: Exception) -> Response:
    return Response(status_code=400)


async def _bad_control_body(_: Request, error: Exception) -> Response:
    return json_response(400, numeric(400, f"The body cannot be read: {error}"))
