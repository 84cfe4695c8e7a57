"""Handler of alerts."""

from __future__ import annotations

from gateway.admin.api.answers import AlertAnswer, Listing, listing, of_alert
from gateway.admin.api.requests import AlertQuery, Nothing
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.alerts import records
from gateway.db.paging import PageOf


async def page(api: AdminApi, call: AdminCall[Nothing, AlertQuery]) -> Listing[AlertAnswer]:
    query = call.query
    async with api.database.autocommit() as connection:
        found = await records.page(connection, query.state, PageOf(query.limit, query.after))
    return listing(found, of_alert)
