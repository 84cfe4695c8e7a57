"""Handlers of sessions: who is signed in, and the word that signs somebody out."""

from __future__ import annotations

from gateway.access import listed_sessions
from gateway.admin.api.answers import Listing, SessionAnswer, listing, of_session
from gateway.admin.api.requests import EndSessions, Nothing, SessionQuery
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.db.paging import Page, PageOf


async def page(api: AdminApi, call: AdminCall[Nothing, SessionQuery]) -> Listing[SessionAnswer]:
    query = call.query
    async with api.database.autocommit() as connection:
        found = await listed_sessions.page(
            connection, api.sessions, query.subject, PageOf(query.limit, query.after)
        )
    return listing(found, of_session)


async def end(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> SessionAnswer:
    async with api.database.transaction() as connection:
        return of_session(await listed_sessions.end(connection, call.actor, api.sessions, call.params["id"]))


async def end_all(api: AdminApi, call: AdminCall[EndSessions, Nothing]) -> Listing[SessionAnswer]:
    async with api.database.transaction() as connection:
        ended = await listed_sessions.end_all(connection, call.actor, api.sessions, call.body.subject)
    return listing(Page(tuple(ended), None), of_session)
