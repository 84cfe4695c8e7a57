"""The control API under /sandbox: look at what happened, arm faults, change accounts and keys."""

from decimal import Decimal
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.sandbox.answers import json_response
from gateway.sandbox.errors import SandboxError, invalid
from gateway.sandbox.faults import Faults, UnknownFaultError, collect
from gateway.sandbox.journal import JOURNAL_LENGTH, key_digest
from gateway.sandbox.world import ArmedFault, World, canonical

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class ArmRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /sandbox/faults`: `name` with `value`, or several as `marker` ("status=429 shape=none")."""

    name: Text | None = None
    value: str | int | float | None = None
    marker: Text | None = None
    times: Annotated[int, msgspec.Meta(ge=1)] | None = 1
    path: Text | None = None
    model: Text | None = None
    key: Text | None = None


class AccountChange(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /sandbox/accounts/{name}`; a field left out stays, null lifts the limit."""

    credits: Decimal | msgspec.UnsetType | None = msgspec.UNSET
    models: list[Text] | msgspec.UnsetType | None = msgspec.UNSET


class KeyChange(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /sandbox/keys/revoke` and `/restore`: the key itself or its SHA-256."""

    key: Text | None = None
    sha256: Text | None = None


async def state(request: Request) -> Response:
    """`GET /sandbox/state`: accounts, tasks, armed faults, revoked keys, work under way."""
    world = _world(request)
    document = {
        "accounts": list(world.accounts.values()),
        "tasks": [_task(world, task_id) for task_id in world.tasks],
        "faults": [_armed(armed) for armed in world.armed],
        "revoked": sorted(world.revoked),
        "requests": world.journal.total,
        "executing": world.executing,
        "most_executing": world.most_executing,
    }
    return json_response(200, document)


async def journal(request: Request) -> Response:
    """`GET /sandbox/journal?limit=`: the last requests (100), the oldest of them first."""
    limit = request.query_params.get("limit", "100")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 7 and 1 <= int(limit) <= JOURNAL_LENGTH):
        raise invalid(f"limit must be an integer from 1 to {JOURNAL_LENGTH}.")
    return json_response(200, {"data": _world(request).journal.last(int(limit))})


async def counters(request: Request) -> Response:
    """`GET /sandbox/counters`: requests, executions, reads and credits of each key."""
    return json_response(200, {"data": _world(request).journal.counters()})


async def reset(request: Request) -> Response:
    """`POST /sandbox/reset`: forget everything."""
    _world(request).clear()
    return json_response(200, {"ok": True})


async def arm(request: Request) -> Response:
    """`POST /sandbox/faults`: arm faults for the next matching requests."""
    wanted = msgspec.json.decode(await request.body(), type=ArmRequest)
    try:
        faults = _wanted_faults(wanted)
    except UnknownFaultError as error:
        raise invalid(str(error)) from error
    armed = ArmedFault(faults, wanted.times, wanted.path, wanted.model, wanted.key)
    _world(request).armed.append(armed)
    return json_response(200, _armed(armed))


async def disarm(request: Request) -> Response:
    """`DELETE /sandbox/faults`: drop every armed fault."""
    world = _world(request)
    dropped = len(world.armed)
    world.armed.clear()
    return json_response(200, {"dropped": dropped})


async def change_account(request: Request) -> Response:
    """`POST /sandbox/accounts/{name}`: set the balance or the models of an account."""
    change = msgspec.json.decode(await request.body(), type=AccountChange)
    account = _world(request).account(request.path_params["name"])
    if change.credits is not msgspec.UNSET:
        account.credits = change.credits
    if change.models is not msgspec.UNSET:
        account.models = (
            None if change.models is None else frozenset(canonical(m) or m for m in change.models)
        )
    return json_response(200, account)


async def revoke_key(request: Request) -> Response:
    """`POST /sandbox/keys/revoke`: this key gets 401 from now on."""
    digest = await _digest(request)
    _world(request).revoked.add(digest)
    return json_response(200, {"sha256": digest, "revoked": True})


async def restore_key(request: Request) -> Response:
    """`POST /sandbox/keys/restore`: a revoked key works again."""
    digest = await _digest(request)
    _world(request).revoked.discard(digest)
    return json_response(200, {"sha256": digest, "revoked": False})


async def end_task(request: Request) -> Response:
    """`POST /sandbox/tasks/{id}/end`: let a task end now, also a stuck one."""
    world = _world(request)
    task = world.tasks.get(request.path_params["id"])
    if task is None:
        raise SandboxError(404, "Task not found.")
    world.end_task(task)
    return json_response(200, _task(world, task.id))


def _world(request: Request) -> World:
    world: World = request.app.state.world
    world.bill_ended_tasks()
    return world


def _wanted_faults(wanted: ArmRequest) -> Faults:
    if (wanted.name is None) == (wanted.marker is None):
        raise UnknownFaultError("Give either name or marker.")
    if wanted.name is None:
        return collect((wanted.marker or "").split())
    value = "" if wanted.value is None else str(wanted.value)
    return collect([f"{wanted.name}={value}" if value else wanted.name])


def _armed(armed: ArmedFault) -> dict[str, object]:
    return {
        "faults": armed.faults.labels(),
        "times": armed.times,
        "path": armed.path,
        "model": armed.model,
        "key": armed.key,
    }


def _task(world: World, task_id: str) -> dict[str, object]:
    task = world.tasks[task_id]
    return {
        "id": task.id,
        "account": task.account,
        "model": task.model,
        "ended": world.clock() >= task.ends_at,
        "reads": task.reads,
        "price": task.price,
        "billed": task.billed,
    }


async def _digest(request: Request) -> str:
    change = msgspec.json.decode(await request.body(), type=KeyChange)
    if (change.key is None) == (change.sha256 is None):
        raise invalid("Give either key or sha256.")
    return change.sha256 if change.sha256 is not None else key_digest(change.key or "")
