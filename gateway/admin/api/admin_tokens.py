"""Handlers of admin tokens."""

from __future__ import annotations

from gateway.access import admin_tokens
from gateway.admin.api.answers import (
    AdminTokenAnswer,
    IssuedAdminTokenAnswer,
    Listing,
    listing,
    of_admin_token,
    of_issued_admin_token,
)
from gateway.admin.api.requests import IssueAdminToken, Nothing, PageQuery
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.db.paging import PageOf


async def issue(api: AdminApi, call: AdminCall[IssueAdminToken, Nothing]) -> IssuedAdminTokenAnswer:
    async with api.database.transaction() as connection:
        issued = await admin_tokens.issue(connection, call.actor, api.peppers, call.body.name, call.body.role)
    return of_issued_admin_token(issued.token, issued.secret)


async def page(api: AdminApi, call: AdminCall[Nothing, PageQuery]) -> Listing[AdminTokenAnswer]:
    async with api.database.autocommit() as connection:
        found = await admin_tokens.page(connection, PageOf(call.query.limit, call.query.after))
    return listing(found, of_admin_token)


async def revoke(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> AdminTokenAnswer:
    async with api.database.transaction() as connection:
        return of_admin_token(await admin_tokens.revoke(connection, call.actor, call.params["id"]))
