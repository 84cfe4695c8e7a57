"""Handlers of team keys."""

from __future__ import annotations

from gateway.access import team_keys, teams
from gateway.access.team_keys import KeyFilter, NewKey
from gateway.admin.api.answers import IssuedKeyAnswer, KeyAnswer, Listing, listing, of_issued_key, of_key
from gateway.admin.api.requests import IssueKey, KeyQuery, Nothing, PageQuery, PatchKey, RotateKey
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.db.paging import PageOf


async def issue(api: AdminApi, call: AdminCall[IssueKey, Nothing]) -> IssuedKeyAnswer:
    new = NewKey(**call.body.model_dump())
    async with api.database.transaction() as connection:
        team = await teams.find(connection, call.params["team"])
        issued = await team_keys.issue(connection, call.actor, api.peppers, team, new)
    return of_issued_key(issued.key, issued.secret, api.clock.now())


async def page(api: AdminApi, call: AdminCall[Nothing, PageQuery]) -> Listing[KeyAnswer]:
    async with api.database.autocommit() as connection:
        team = await teams.find(connection, call.params["team"])
        found = await team_keys.page(connection, team, PageOf(call.query.limit, call.query.after))
    now = api.clock.now()
    return listing(found, lambda key: of_key(key, now))


async def page_of_all(api: AdminApi, call: AdminCall[Nothing, KeyQuery]) -> Listing[KeyAnswer]:
    query, now = call.query, api.clock.now()
    async with api.database.autocommit() as connection:
        team = None if query.team is None else await teams.find(connection, query.team)
        narrow = KeyFilter(team_id=team.id if team else None, state=query.state)
        found = await team_keys.page_of_all(connection, narrow, PageOf(query.limit, query.after), now)
    return listing(found, lambda key: of_key(key, now))


async def show(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> KeyAnswer:
    async with api.database.autocommit() as connection:
        key = await team_keys.find(connection, call.params["id"])
    return of_key(key, api.clock.now())


async def update(api: AdminApi, call: AdminCall[PatchKey, Nothing]) -> KeyAnswer:
    changes = call.body.model_dump(exclude_unset=True)
    async with api.database.transaction() as connection:
        key = await team_keys.update(connection, call.actor, call.params["id"], changes)
    await api.changed.announce("key", key.id)
    return of_key(key, api.clock.now())


async def revoke(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> KeyAnswer:
    now = api.clock.now()
    async with api.database.transaction() as connection:
        key = await team_keys.revoke(connection, call.actor, call.params["id"], now)
    await api.changed.announce("key", key.id)
    return of_key(key, now)


async def rotate(api: AdminApi, call: AdminCall[RotateKey, Nothing]) -> IssuedKeyAnswer:
    now = api.clock.now()
    overlap = (now, call.body.overlap_seconds)
    async with api.database.transaction() as connection:
        old, issued = await team_keys.rotate(connection, call.actor, api.peppers, call.params["id"], overlap)
    await api.changed.announce("key", old.id)
    return of_issued_key(issued.key, issued.secret, now)
