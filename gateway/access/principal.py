"""Who is calling: one team key, with everything a request needs to know of it and its team."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from uuid import UUID

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Requests a minute and calls in flight; None is unlimited."""

    requests_per_minute: int | None
    max_in_flight: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated team key. Holds no secret."""

    team_id: UUID
    team_slug: str
    team_name: str
    team_suspended: bool
    time_zone: str
    key_id: str
    key_name: str
    expires_at: datetime | None
    allowed_addresses: tuple[Network, ...] | None
    team_models: frozenset[str] | None
    key_models: frozenset[str] | None
    team_limits: Limits
    key_limits: Limits

    def may_use(self, model: str, canonical: Callable[[str], str] = str) -> bool:
        """Whether this key and its team both allow the model, a canonical id.

        `canonical` resolves aliases: a list may name a model by one.
        """
        return all(
            allowed is None or model in allowed or any(canonical(name) == model for name in allowed)
            for allowed in (self.team_models, self.key_models)
        )

    def may_call_from(self, address: Address | None) -> bool:
        """Whether the key may be used from this address; a restricted key may not be used from an unknown one."""
        if self.allowed_addresses is None:
            return True
        return address is not None and any(address in network for network in self.allowed_addresses)

    def expired(self, now: datetime) -> bool:
        """Whether the key's time is over at `now`."""
        return self.expires_at is not None and self.expires_at <= now
