"""Handlers of deliveries."""

from __future__ import annotations

from gateway.admin.api.alert_answers import DeliveryAnswer, of_delivery
from gateway.admin.api.answers import Listing, listing
from gateway.admin.api.requests import DeliveryQuery, Nothing
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.alerts import deliveries
from gateway.db.paging import PageOf


async def page(api: AdminApi, call: AdminCall[Nothing, DeliveryQuery]) -> Listing[DeliveryAnswer]:
    query = call.query
    async with api.database.autocommit() as connection:
        which = PageOf(query.limit, query.after)
        found = await deliveries.page(connection, query.webhook, query.state, which)
    return listing(found, of_delivery)


async def redeliver(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> DeliveryAnswer:
    async with api.database.transaction() as connection:
        return of_delivery(await deliveries.redeliver(connection, call.actor, call.params["id"]))
