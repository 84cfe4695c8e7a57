"""Handlers of teams."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access import teams
from gateway.access.teams import NewTeam, Team
from gateway.admin.api.answers import Listing, TeamAnswer, of_team
from gateway.admin.api.requests import CreateTeam, Nothing, PageQuery, PatchTeam
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.credits import counters, quotas
from gateway.credits.quotas import Limit, Owner
from gateway.db.paging import PageOf


async def create(api: AdminApi, call: AdminCall[CreateTeam, Nothing]) -> TeamAnswer:
    body = call.body
    new = NewTeam(**body.model_dump(exclude={"quota"}))
    async with api.database.transaction() as connection:
        team = await teams.create(connection, call.actor, new)
        if body.quota is not None:
            limit = Limit(body.quota.limit)
            await quotas.put(connection, call.actor, Owner(team.id), body.quota.period, limit)
        await quotas.require_limited(connection, team.id)
        return (await _answers(connection, [team]))[0]


async def page(api: AdminApi, call: AdminCall[Nothing, PageQuery]) -> Listing[TeamAnswer]:
    async with api.database.autocommit() as connection:
        found = await teams.page(connection, PageOf(call.query.limit, call.query.after))
        answers = await _answers(connection, found.items)
    return Listing(answers, found.next is not None, found.next)


async def show(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> TeamAnswer:
    async with api.database.autocommit() as connection:
        return (await _answers(connection, [await teams.find(connection, call.params["team"])]))[0]


async def update(api: AdminApi, call: AdminCall[PatchTeam, Nothing]) -> TeamAnswer:
    changes = call.body.model_dump(exclude_unset=True)
    async with api.database.transaction() as connection:
        before = await teams.find(connection, call.params["team"])
        moves = changes.get("time_zone", before.time_zone) != before.time_zone
        if moves:
            await counters.lock(connection, before.id)
            await counters.close_dated(connection, before.id)
        team = await teams.update(connection, call.actor, str(before.id), changes)
        if moves:
            await counters.open_missing(connection, team.id)
        await quotas.require_limited(connection, team.id)
        answer = (await _answers(connection, [team]))[0]
    await api.changed.announce("team", str(team.id))
    return answer


async def suspend(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> TeamAnswer:
    async with api.database.transaction() as connection:
        team = await teams.suspend(connection, call.actor, call.params["team"])
        answer = (await _answers(connection, [team]))[0]
    await api.changed.announce("team", str(team.id))
    return answer


async def resume(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> TeamAnswer:
    async with api.database.transaction() as connection:
        team = await teams.resume(connection, call.actor, call.params["team"])
        answer = (await _answers(connection, [team]))[0]
    await api.changed.announce("team", str(team.id))
    return answer


async def _answers(connection: AsyncConnection, found: Sequence[Team]) -> list[TeamAnswer]:
    owned = await quotas.of_teams(connection, [team.id for team in found])
    return [of_team(team, owned.get(team.id, [])) for team in found]
