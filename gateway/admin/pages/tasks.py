"""Tasks: what runs and what has ended, and one task with its pictures for who asks for them."""

from __future__ import annotations

from typing import Any

from gateway.admin.api.answers import TaskAnswer
from gateway.admin.api.credit_answers import HoldAnswer
from gateway.admin.pages import filters, tables
from gateway.admin.pages.page import Answer, Html, PageCall
from gateway.admin.pages.requests import lasted
from gateway.errors import GatewayError
from gateway.tasks import pictures

FILTERS = ("team", "status", "ended")


async def listing(call: PageCall) -> Answer:
    """The list; for a script that polls, its rows alone."""
    query = filters.narrowed(call.query, FILTERS)
    if call.query.get("format") == "csv":
        return await tables.download(call, "tasks", "/tasks", query, _COLUMNS)
    problem, found = await filters.page(call, "/tasks", query)
    values: dict[str, Any] = {
        "tasks": found,
        "keys": await filters.key_names(call, {task.key_id for task in found.data}),
        "lasted": lasted,
        "narrow": query,
    }
    if call.view.fragment and not problem:
        return Html(template="tasks_rows.html", values=values, live=True)
    values |= await filters.choices(call)
    values |= {"live": filters.is_live(call.query) and not problem, "problem": problem}
    return Html(template="tasks.html", values=values, status=400 if problem else 200)


async def show(call: PageCall) -> Html:
    """The pictures are loaded by the browser from where Pixapi keeps them, so only when that is asked for."""
    task: TaskAnswer = await call.ask("/tasks/{id}", id=call.params["id"])
    keys = await call.ask("/upstream-keys", {"limit": 200})
    shown = call.query.get("pictures") == "1" and task.ended_at is not None
    found: tuple[str, ...] = ()
    if shown:
        async with call.dashboard.api.database.autocommit() as connection:
            found = await pictures.of_task(connection, task.id)
    values = {
        "task": task,
        "hold": await _hold(call, task),
        "keys": await filters.key_names(call, {task.key_id}),
        "upstream_key": next((key.label for key in keys.data if key.id == task.upstream_key_id), None),
        "lasted": lasted,
        "shown": shown,
        "pictures": found,
    }
    return Html(
        template="task.html", values=values, images_from=sorted({pictures.origin(url) for url in found})
    )


async def _hold(call: PageCall, task: TaskAnswer) -> HoldAnswer | None:
    """None when it is no longer kept."""
    try:
        found: HoldAnswer = await call.ask("/holds/{id}", id=str(task.hold_id))
    except GatewayError as error:
        if error.status != 404:
            raise
        return None
    return found


_COLUMNS: list[tables.Column] = [
    ("id", lambda task: task.id),
    ("created_at", lambda task: task.created_at),
    ("ended_at", lambda task: task.ended_at),
    ("team", lambda task: task.team),
    ("key", lambda task: task.key_id),
    ("model", lambda task: task.model),
    ("operation", lambda task: task.operation),
    ("status", lambda task: task.status),
    ("credits_cost", lambda task: task.credits_cost),
    ("failed_reads", lambda task: task.failed_reads),
    ("hold_id", lambda task: task.hold_id),
]
