"""Handler of usage: read only."""

from __future__ import annotations

from gateway.access import teams
from gateway.admin.api.answers import CsvAnswer
from gateway.admin.api.credit_answers import UsageAnswer, of_usage
from gateway.admin.api.requests import Nothing, UsageQuery
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.credits import usage


async def show(api: AdminApi, call: AdminCall[Nothing, UsageQuery]) -> UsageAnswer | CsvAnswer:
    query = call.query
    which = usage.range_of(query.start, query.end, api.clock.now())
    async with api.database.autocommit() as connection:
        team = None if query.team is None else await teams.find(connection, query.team)
        found = await usage.statement(connection, which, query.by, team.id if team else None)
    if query.format == "json":
        return of_usage(found)
    name = f"usage-{usage.bound_text(which.start)}-{usage.bound_text(which.end)}.csv"
    return CsvAnswer(name.replace(":", ""), usage.csv_text(found))
