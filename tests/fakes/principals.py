"""A team key's principal, as authentication would find it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from gateway.access.principal import Limits, Principal

TEAM_ID = UUID("018e0000-0000-7000-8000-000000000001")
UNLIMITED = Limits(requests_per_minute=None, max_in_flight=None)
_ALPHA = Principal(
    team_id=TEAM_ID,
    team_slug="alpha",
    team_name="Alpha",
    team_suspended=False,
    time_zone="UTC",
    key_id="0123456789",
    key_name="laptop",
    expires_at=None,
    allowed_addresses=None,
    team_models=None,
    key_models=None,
    team_limits=UNLIMITED,
    key_limits=UNLIMITED,
)


def principal(**fields: Any) -> Principal:
    """The unrestricted principal of team `alpha`, but for these fields."""
    return replace(_ALPHA, **fields)
