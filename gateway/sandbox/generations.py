"""The five paid calls: read, check, reserve, work, bill, answer."""

import asyncio
import base64
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from gateway.sandbox.answers import Document, respond
from gateway.sandbox.call import Call, open_call
from gateway.sandbox.errors import invalid
from gateway.sandbox.faults import NO_FAULTS, UnknownFaultError, read_prompt
from gateway.sandbox.files import draw
from gateway.sandbox.intake import Intake, read_body
from gateway.sandbox.submission import Operation, Submission, check, refuse_async_switch
from gateway.sandbox.tasks import Task, new_task_id

_IMAGE_SECONDS = 6.0
_VIDEO_SECONDS = 10.0

Handler = Callable[[Request], Awaitable[Response]]


def generation(operation: Operation, *, background: bool) -> Handler:
    """The endpoint of one paid call; `background` makes a task instead of answering with the result."""

    async def endpoint(request: Request) -> Response:
        call = open_call(request)
        intake = await read_body(request, call.entry, call.world.journal)
        refuse_async_switch(request.query_params.get("async"), intake.fields, request.url.path)
        _meet_faults(call, intake)

        async def produce() -> Document:
            order = check(operation, intake, call.account, call.faults)
            call.world.reserve(call.account, order.price)
            call.world.record_execution(call.entry, call.key)
            return _submit(call, order) if background else await _work(call, order)

        return await respond(call, produce)

    return endpoint


def _meet_faults(call: Call, intake: Intake) -> None:
    prompt, model = intake.fields.get("prompt"), intake.fields.get("model")
    try:
        marked = read_prompt(prompt) if isinstance(prompt, str) else NO_FAULTS
    except UnknownFaultError as error:
        raise invalid(str(error)) from error
    call.meet(marked, model if isinstance(model, str) else None)


async def _work(call: Call, order: Submission) -> Document:
    world = call.world
    world.executing += 1
    world.most_executing = max(world.most_executing, world.executing)
    try:
        await asyncio.sleep(world.options.sync_seconds / world.options.speed)
    finally:
        world.executing -= 1
        world.charge(call.account, order.price, order.price)
    world.record_bill(call.entry, call.key, order.price)
    return {"created": int(world.clock()), "data": [_item(call, order, name) for name in order.files]}


def _item(call: Call, order: Submission, name: str) -> dict[str, str]:
    if order.b64:
        return {"b64_json": base64.b64encode(draw(name)).decode()}
    return {"url": f"{call.base_url}/files/{name}"}


def _submit(call: Call, order: Submission) -> Document:
    world, now = call.world, call.world.clock()
    usual = _VIDEO_SECONDS if order.model.category == "video" else _IMAGE_SECONDS
    seconds = usual / world.options.speed
    if "duration" in call.faults:
        seconds = call.faults.number("duration")
    task = Task(
        id=new_task_id(now),
        account=call.account.name,
        model=order.model_name,
        category=order.model.category,
        files=order.files,
        price=order.price,
        created=now,
        seconds=seconds,
        faults=call.faults,
        entry_id=call.entry.id,
    )
    world.add_task(task, call.entry, call.key)
    return {
        "status": "submitted",
        "id": task.id,
        "progress": 0,
        "created_at": int(now),
        "model": order.model_name,
    }
