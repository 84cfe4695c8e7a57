"""Handlers of upstream keys."""

from __future__ import annotations

from gateway.admin.api.answers import Listing, UpstreamKeyAnswer, listing, of_upstream_key
from gateway.admin.api.requests import AddUpstreamKey, Nothing, PageQuery, PatchUpstreamKey, RemoveQuery
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.db.paging import PageOf
from gateway.pool import upstream_keys
from gateway.pool.upstream_keys import NewUpstreamKey, UpstreamKey


async def add(api: AdminApi, call: AdminCall[AddUpstreamKey, Nothing]) -> UpstreamKeyAnswer:
    new = NewUpstreamKey(**call.body.model_dump())
    async with api.database.transaction() as connection:
        key = await upstream_keys.add(connection, call.actor, api.vault, new)
    return await _changed(api, key)


async def page(api: AdminApi, call: AdminCall[Nothing, PageQuery]) -> Listing[UpstreamKeyAnswer]:
    async with api.database.autocommit() as connection:
        found = await upstream_keys.page(connection, PageOf(call.query.limit, call.query.after))
    return listing(found, of_upstream_key)


async def show(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> UpstreamKeyAnswer:
    async with api.database.autocommit() as connection:
        return of_upstream_key(await upstream_keys.find(connection, call.params["id"]))


async def update(api: AdminApi, call: AdminCall[PatchUpstreamKey, Nothing]) -> UpstreamKeyAnswer:
    changes = call.body.model_dump(exclude_unset=True)
    async with api.database.transaction() as connection:
        key = await upstream_keys.update(connection, call.actor, call.params["id"], changes)
    return await _changed(api, key)


async def drain(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> UpstreamKeyAnswer:
    async with api.database.transaction() as connection:
        key = await upstream_keys.drain(connection, call.actor, call.params["id"])
    return await _changed(api, key)


async def disable(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> UpstreamKeyAnswer:
    async with api.database.transaction() as connection:
        key = await upstream_keys.disable(connection, call.actor, call.params["id"])
    return await _changed(api, key)


async def enable(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> UpstreamKeyAnswer:
    async with api.database.transaction() as connection:
        key = await upstream_keys.enable(connection, call.actor, call.params["id"])
    return await _changed(api, key)


async def remove(api: AdminApi, call: AdminCall[Nothing, RemoveQuery]) -> UpstreamKeyAnswer:
    async with api.database.transaction() as connection:
        key = await upstream_keys.remove(connection, call.actor, call.params["id"], force=call.query.force)
    return await _changed(api, key)


async def _changed(api: AdminApi, key: UpstreamKey) -> UpstreamKeyAnswer:
    await api.changed.announce("upstream-key", str(key.id))
    return of_upstream_key(key)
