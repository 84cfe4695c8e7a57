"""Handlers of webhooks."""

from __future__ import annotations

from gateway.admin.api.alert_answers import (
    DeliveryAnswer,
    NewWebhookAnswer,
    WebhookAnswer,
    of_delivery,
    of_new_webhook,
    of_webhook,
)
from gateway.admin.api.answers import Listing, listing
from gateway.admin.api.requests import AddWebhook, Nothing, PageQuery, PatchWebhook
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.alerts import deliveries, webhooks
from gateway.alerts.webhooks import NewWebhook
from gateway.db.paging import PageOf


async def add(api: AdminApi, call: AdminCall[AddWebhook, Nothing]) -> NewWebhookAnswer:
    new = NewWebhook(**call.body.model_dump())
    async with api.database.transaction() as connection:
        return of_new_webhook(*await webhooks.add(connection, call.actor, api.vault, new))


async def page(api: AdminApi, call: AdminCall[Nothing, PageQuery]) -> Listing[WebhookAnswer]:
    async with api.database.autocommit() as connection:
        found = await webhooks.page(connection, PageOf(call.query.limit, call.query.after))
    return listing(found, lambda webhook: of_webhook(webhook, call.role))


async def update(api: AdminApi, call: AdminCall[PatchWebhook, Nothing]) -> WebhookAnswer:
    changes = call.body.model_dump(exclude_unset=True)
    async with api.database.transaction() as connection:
        found = await webhooks.update(connection, call.actor, call.params["id"], changes)
    return of_webhook(found, call.role)


async def remove(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> WebhookAnswer:
    async with api.database.transaction() as connection:
        return of_webhook(await webhooks.remove(connection, call.actor, call.params["id"]), call.role)


async def test(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> DeliveryAnswer:
    async with api.database.transaction() as connection:
        return of_delivery(await deliveries.enqueue_test(connection, call.actor, call.params["id"]))
