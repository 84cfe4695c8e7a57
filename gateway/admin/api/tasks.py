"""Handlers of tasks: read only."""

from __future__ import annotations

import re

from gateway import errors
from gateway.access import teams
from gateway.admin.api.answers import Listing, TaskAnswer, listing, of_task
from gateway.admin.api.requests import Nothing, TaskQuery
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.db.paging import PageOf
from gateway.tasks import listing as tasks
from gateway.tasks.listing import TaskFilter

_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


async def page(api: AdminApi, call: AdminCall[Nothing, TaskQuery]) -> Listing[TaskAnswer]:
    query = call.query
    async with api.database.autocommit() as connection:
        team = None if query.team is None else await teams.find(connection, query.team)
        narrow = TaskFilter(team_id=team.id if team else None, status=query.status, ended=query.ended)
        found = await tasks.page(connection, narrow, PageOf(query.limit, query.after))
    return listing(found, of_task)


async def show(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> TaskAnswer:
    if not _TASK_ID.fullmatch(call.params["id"]):
        raise errors.not_found("There is no task with this id.", "task_not_found")
    async with api.database.autocommit() as connection:
        return of_task(await tasks.find(connection, call.params["id"]))
