"""Handler of the audit trail: read only."""

from __future__ import annotations

from gateway.access import teams
from gateway.admin.api.answers import AuditAnswer, Listing, listing, of_audit_entry
from gateway.admin.api.requests import AuditQuery, Nothing
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.db import audit_listing
from gateway.db.audit_listing import AuditFilter
from gateway.db.paging import PageOf


async def page(api: AdminApi, call: AdminCall[Nothing, AuditQuery]) -> Listing[AuditAnswer]:
    query = call.query
    async with api.database.autocommit() as connection:
        team = None if query.team is None else await teams.find(connection, query.team)
        narrow = AuditFilter(
            subject_type=query.subject_type,
            subject_id=query.subject_id,
            actor=query.actor,
            action=query.action,
            team_id=team.id if team else None,
        )
        found = await audit_listing.page(connection, narrow, PageOf(query.limit, query.after))
    return listing(found, of_audit_entry)
