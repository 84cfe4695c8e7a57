"""Handler of the gateway's status."""

from __future__ import annotations

from sqlalchemy import func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import __version__
from gateway.admin.api.answers import CountsAnswer, DatabaseAnswer, StatusAnswer, of_alert
from gateway.admin.api.requests import Nothing
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.alerts import records
from gateway.db.paging import PageOf
from gateway.db.tables import NOW, holds, tasks, team_keys, teams, upstream_keys
from gateway.errors import GatewayError

MOST_ALERTS = 100


async def show(api: AdminApi, _call: AdminCall[Nothing, Nothing]) -> StatusAnswer:
    try:
        async with api.database.autocommit() as connection:
            revision = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
            counts = await _counts(connection)
            alerts = await records.page(connection, "open", PageOf(MOST_ALERTS))
    except GatewayError:
        down = DatabaseAnswer(ok=False, revision=None)
        return StatusAnswer(version=__version__, database=down, counts=None, alerts=None)
    database = DatabaseAnswer(ok=True, revision=revision)
    shown = [of_alert(alert) for alert in alerts.items]
    return StatusAnswer(version=__version__, database=database, counts=counts, alerts=shown)


async def _counts(connection: AsyncConnection) -> CountsAnswer:
    expires = team_keys.c.expires_at
    working = team_keys.c.revoked_at.is_(None) & or_(expires.is_(None), expires > NOW)
    query = select(
        select(func.count()).select_from(teams).scalar_subquery().label("teams"),
        select(func.count()).where(working).scalar_subquery().label("keys"),
        select(func.count()).where(tasks.c.ended_at.is_(None)).scalar_subquery().label("tasks"),
        select(func.count()).where(holds.c.state.in_(("held", "unknown"))).scalar_subquery().label("holds"),
        select(func.count()).where(holds.c.state == "unknown").scalar_subquery().label("unknown_holds"),
    )
    row = (await connection.execute(query)).one()
    by_state = (
        select(upstream_keys.c.state, func.count().label("keys"))
        .where(upstream_keys.c.removed_at.is_(None))
        .group_by(upstream_keys.c.state)
    )
    states = {row.state: row.keys for row in await connection.execute(by_state)}
    return CountsAnswer(
        teams=row.teams,
        keys=row.keys,
        upstream_keys={
            state: states.get(state, 0) for state in ("active", "draining", "disabled", "refused")
        },
        open_tasks=row.tasks,
        open_holds=row.holds,
        unknown_holds=row.unknown_holds,
    )
