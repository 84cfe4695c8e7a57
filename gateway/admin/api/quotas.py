"""Handlers of quotas: the same three verbs for a team and for one of its keys."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.access import team_keys, teams
from gateway.admin.api.answers import Listing, QuotaAnswer, of_quota
from gateway.admin.api.requests import Nothing, PutQuota
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.credits import quotas
from gateway.credits.quotas import PERIODS, Limit, Owner, Period


async def page(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> Listing[QuotaAnswer]:
    async with api.database.autocommit() as connection:
        owner = await _owner(connection, call)
        found = await quotas.of(connection, owner)
    return Listing([of_quota(quota) for quota in found], has_more=False, next=None)


async def show(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> QuotaAnswer:
    period = _period(call)
    async with api.database.autocommit() as connection:
        owner = await _owner(connection, call)
        return of_quota(await quotas.find(connection, owner, period))


async def put(api: AdminApi, call: AdminCall[PutQuota, Nothing]) -> QuotaAnswer:
    period, limit = _period(call), Limit(call.body.limit, call.body.enforce)
    async with api.database.transaction() as connection:
        owner = await _owner(connection, call)
        quota = await quotas.put(connection, call.actor, owner, period, limit)
    await _announce(api, owner)
    return of_quota(quota)


async def remove(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> QuotaAnswer:
    period = _period(call)
    async with api.database.transaction() as connection:
        owner = await _owner(connection, call)
        quota = await quotas.remove(connection, call.actor, owner, period)
    await _announce(api, owner)
    return of_quota(quota)


async def _owner(connection: AsyncConnection, call: AdminCall[Any, Any]) -> Owner:
    if "team" in call.params:
        return Owner((await teams.find(connection, call.params["team"])).id)
    key = await team_keys.find(connection, call.params["id"])
    return Owner(key.team_id, key.id)


def _period(call: AdminCall[Any, Any]) -> Period:
    for period in PERIODS:
        if period == call.params["period"]:
            return period
    raise errors.bad_request(f"period: must be one of {', '.join(PERIODS)}", "invalid_fields")


async def _announce(api: AdminApi, owner: Owner) -> None:
    if owner.key_id is None:
        await api.changed.announce("team", str(owner.team_id))
    else:
        await api.changed.announce("key", owner.key_id)
