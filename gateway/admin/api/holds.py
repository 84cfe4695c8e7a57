"""Handlers of holds: the list, the list with every send, and the word that ends an unknown one."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access import teams
from gateway.admin.api.answers import Listing, listing
from gateway.admin.api.credit_answers import HoldAnswer, RequestAnswer, of_hold, of_request
from gateway.admin.api.requests import HoldQuery, Nothing, ResolveHold
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.credits import holds
from gateway.credits.holds import HoldFilter, ListedHold, Resolution
from gateway.db.paging import Page, PageOf


async def page(api: AdminApi, call: AdminCall[Nothing, HoldQuery]) -> Listing[HoldAnswer]:
    async with api.database.autocommit() as connection:
        found = await _page(connection, call.query)
    return listing(found, of_hold)


async def show(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> HoldAnswer:
    async with api.database.autocommit() as connection:
        return of_hold(await holds.find(connection, call.params["id"]))


async def requests(api: AdminApi, call: AdminCall[Nothing, HoldQuery]) -> Listing[RequestAnswer]:
    async with api.database.autocommit() as connection:
        found = await _page(connection, call.query)
        sent = await holds.attempts_of(connection, found.items)
    return listing(found, lambda hold: of_request(hold, sent.get(hold.id, [])))


async def resolve(api: AdminApi, call: AdminCall[ResolveHold, Nothing]) -> HoldAnswer:
    body = call.body
    resolution = Resolution(outcome=body.outcome, credits=body.credits, reason=body.reason)
    async with api.database.transaction() as connection:
        return of_hold(await holds.resolve(connection, call.actor, call.params["id"], resolution))


async def _page(connection: AsyncConnection, query: HoldQuery) -> Page[ListedHold]:
    team = None if query.team is None else await teams.find(connection, query.team)
    narrow = HoldFilter(
        state=query.state,
        team_id=team.id if team else None,
        key_id=query.key,
        model=query.model,
        request_id=query.request_id,
        start=query.start,
        end=query.end,
    )
    return await holds.page(connection, narrow, PageOf(query.limit, query.after))
