"""The free calls: one task, the model list, and every path that does not exist."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.sandbox.answers import Document, Silence, refusal, respond
from gateway.sandbox.call import Call, open_call
from gateway.sandbox.errors import SandboxError
from gateway.sandbox.faults import NO_FAULTS, Faults
from gateway.sandbox.prices import MODELS
from gateway.sandbox.tasks import Task, describe

_HANG_SECONDS = 700.0
_ALWAYS = 1_000_000


async def read_task(request: Request) -> Response:
    """`GET /v1/tasks/{id}`: a task of the key's account; any other id is the same 404."""
    call = open_call(request)
    call.world.journal.counter(call.key).reads += 1
    task = call.world.tasks.get(request.path_params["id"])
    if task is None or task.account != call.account.name:
        call.meet(NO_FAULTS, None)
        task = None
    else:
        call.meet(NO_FAULTS, task.model)
    if task is not None:
        task.reads += 1
        spoiled = _spoiled(task, task.faults | call.faults)
        if spoiled is not None:
            call.entry.status = 0 if isinstance(spoiled, Silence) else spoiled.status_code
            return spoiled
    return await respond(call, lambda: _task_document(call, task))


async def list_models(request: Request) -> Response:
    """`GET /v1/models`: canonical ids of what the account may use."""
    call = open_call(request)
    call.meet(NO_FAULTS, None)

    async def produce() -> Document:
        return {"object": "list", "data": [m.listed() for m in MODELS if call.account.allows(m.id)]}

    return await respond(call, produce)


async def nowhere(request: Request) -> Response:
    """Any other path under /v1, journalled like the rest: 404 in the numeric shape."""
    open_call(request)
    raise SandboxError(404, f"Unknown path {request.method} {request.url.path}.")


async def _task_document(call: Call, task: Task | None) -> Document:
    if task is None:
        raise SandboxError(404, "Task not found.")
    call.entry.task_id = task.id
    return describe(task, call.world.clock(), call.base_url, task.faults | call.faults)


def _spoiled(task: Task, faults: Faults) -> Response | None:
    if task.reads <= faults.number("poll_404_first"):
        raise SandboxError(404, "Task not found.")
    if "poll_status" in faults:
        status, _, count = faults.text("poll_status").partition(":")
        if task.reads <= int(count or _ALWAYS):
            return refusal(int(status), faults)
    if "poll_hang" in faults and task.reads <= faults.number("poll_hang", _ALWAYS):
        return Silence(_HANG_SECONDS)
    return None
