"""When a session of a signed-in person is alive: how long, and as long as what it stands on is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_

from gateway.access.admin_tokens import AdminPrincipal
from gateway.access.key_format import Peppers
from gateway.db.tables import NOW, admin_sessions

_ROW = admin_sessions.c


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRules:
    """A session ends by itself after `idle` seconds without a request and `absolute` in any case.

    It lives no longer than what it stands on either: an admin token until that is revoked, the bootstrap token while it
    is set to this text (`bootstrap`, its digests), a provider's word while that `issuer` is configured.
    """

    idle: float
    absolute: float
    bootstrap: Sequence[bytes] = ()
    issuer: str | None = None

    def alive(self) -> ColumnElement[bool]:
        """The condition a living session's row meets. That its token is not revoked is for the query to look up."""
        issued = false() if self.issuer is None else _ROW.issuer == self.issuer
        return and_(
            self.in_time(),
            or_(_ROW.token_id.is_not(None), _ROW.bootstrap_digest.in_(list(self.bootstrap)), issued),
        )

    def in_time(self) -> ColumnElement[bool]:
        """The part of it that never comes back once it is false."""
        return and_(
            _ROW.ended_at.is_(None),
            _ROW.last_seen_at > NOW - timedelta(seconds=self.idle),
            _ROW.created_at > NOW - timedelta(seconds=self.absolute),
        )

    def stands_on(self, who: AdminPrincipal) -> dict[str, Any]:
        """The columns that say what a new session of this principal lives by."""
        if who.token_id is not None:
            return {"token_id": who.token_id}
        if who.actor == "bootstrap":
            return {"bootstrap_digest": self.bootstrap[0]}
        return {"issuer": self.issuer}


def bootstrap_digests(peppers: Peppers, token: str | None) -> list[bytes]:
    """What sessions of the bootstrap token are known by; of no token, none."""
    return [] if token is None else peppers.digests(f"session of the bootstrap token {token}")
