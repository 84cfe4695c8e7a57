"""A principal as it is read from the rows of its key and team."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from sqlalchemy import ColumnElement, and_, or_

from gateway.access.principal import Limits, Network, Principal
from gateway.db.tables import NOW, team_keys, teams

PRINCIPAL: tuple[ColumnElement[Any], ...] = (
    teams.c.id.label("team_id"),
    teams.c.slug,
    teams.c.name.label("team_name"),
    teams.c.suspended_at,
    teams.c.time_zone,
    teams.c.allowed_models.label("team_models"),
    teams.c.requests_per_minute.label("team_rpm"),
    teams.c.max_in_flight.label("team_in_flight"),
    team_keys.c.id.label("key_id"),
    team_keys.c.name.label("key_name"),
    team_keys.c.expires_at,
    team_keys.c.allowed_addresses,
    team_keys.c.allowed_models.label("key_models"),
    team_keys.c.requests_per_minute.label("key_rpm"),
    team_keys.c.max_in_flight.label("key_in_flight"),
)


def works() -> ColumnElement[bool]:
    """Whether a key's row is that of a key that still works."""
    return and_(
        team_keys.c.revoked_at.is_(None),
        # The gateway's clock cuts an expiry off between reads; the database's decides.
        or_(team_keys.c.expires_at.is_(None), team_keys.c.expires_at > NOW),
    )


def principal_of(row: Any) -> Principal:
    """The principal in a row with the columns of `PRINCIPAL`."""
    addresses: tuple[Network, ...] | None = None
    if row.allowed_addresses is not None:
        addresses = tuple(ip_network(text) for text in row.allowed_addresses)
    return Principal(
        team_id=row.team_id,
        team_slug=row.slug,
        team_name=row.team_name,
        team_suspended=row.suspended_at is not None,
        time_zone=row.time_zone,
        key_id=row.key_id,
        key_name=row.key_name,
        expires_at=row.expires_at,
        allowed_addresses=addresses,
        team_models=None if row.team_models is None else frozenset(row.team_models),
        key_models=None if row.key_models is None else frozenset(row.key_models),
        team_limits=Limits(requests_per_minute=row.team_rpm, max_in_flight=row.team_in_flight),
        key_limits=Limits(requests_per_minute=row.key_rpm, max_in_flight=row.key_in_flight),
    )
