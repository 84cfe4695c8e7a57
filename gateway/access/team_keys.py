"""Team keys: what a team calls the gateway with. Only the digest of a key is stored; its text leaves here once."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.access.key_format import TEAM_KEY, Peppers, make
from gateway.access.teams import Team
from gateway.db import audit
from gateway.db.changes import described, frozen, listed, stored
from gateway.db.paging import Keyset, Page, PageOf
from gateway.db.tables import team_keys, teams

KeyState = Literal["active", "rotated", "expired", "revoked"]
LONGEST_OVERLAP = 30 * 24 * 3600
_ID = re.compile(r"[0-9A-Za-z]{10}")
_COLUMNS = [column for column in team_keys.c if column.name not in {"digest", "pepper", "quota_key_id"}]
_ORDER = Keyset("team_keys", team_keys.c.created_at, team_keys.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamKey:
    """A key as stored, without what could be used as one. `id` is the public id inside the key's text."""

    id: str
    team_id: UUID
    team: str  # its slug
    name: str
    last4: str
    allowed_models: tuple[str, ...] | None
    allowed_addresses: tuple[str, ...] | None
    requests_per_minute: int | None
    max_in_flight: int | None
    replaced_by: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime

    @property
    def prefix(self) -> str:
        """How the key's text begins: enough to recognise it."""
        return f"{TEAM_KEY}_{self.id}"

    def state(self, now: datetime) -> KeyState:
        """`rotated` keys still work, until `expires_at`; `expired` and `revoked` ones do not."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "rotated" if self.replaced_by is not None else "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What a key is made of; None means no restriction. Addresses as `normal_address` gives them."""

    name: str
    expires_at: datetime | None = None
    allowed_models: tuple[str, ...] | None = None
    allowed_addresses: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    max_in_flight: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFilter:
    """Which keys; None does not narrow."""

    team_id: UUID | None = None
    state: KeyState | None = None


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key together with its text, which exists nowhere else."""

    key: TeamKey
    secret: str

    def __repr__(self) -> str:
        return f"IssuedKey({self.key.prefix}_…{self.key.last4})"


def normal_address(text: str) -> str:
    """An IP address or network in its usual spelling (`10.1.2.3/8` → `10.0.0.0/8`); raises ValueError."""
    if "%" in text:
        raise ValueError("an address with a zone")
    if "/" in text:
        return str(ipaddress.ip_network(text, strict=False))
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


async def issue(
    connection: AsyncConnection, actor: str, peppers: Peppers, team: Team, new: NewKey
) -> IssuedKey:
    """A new key of the team and its text."""
    issued = await _insert(connection, peppers, team.id, team.slug, new)
    await _record(connection, actor, "key.issue", issued.key, listed(issued.key, asdict(new)))
    return issued


async def find(connection: AsyncConnection, key_id: str, *, lock: bool = False) -> TeamKey:
    """The key with this public id; 404 when there is none."""
    if not _ID.fullmatch(key_id):
        raise _unknown()
    query = _query().where(team_keys.c.id == key_id)
    if lock:
        query = query.with_for_update(of=team_keys, key_share=True)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise _unknown()
    return _key(row)


async def by_ids(connection: AsyncConnection, key_ids: Collection[str]) -> dict[str, TeamKey]:
    """Those of these keys that there are."""
    rows = await connection.execute(_query().where(team_keys.c.id.in_(key_ids)))
    return {row.id: _key(row) for row in rows}


async def page(connection: AsyncConnection, team: Team, which: PageOf) -> Page[TeamKey]:
    """One page of a team's keys, revoked ones too."""
    return await _ORDER.read(connection, _query().where(team_keys.c.team_id == team.id), which, _key)


async def page_of_all(
    connection: AsyncConnection, narrow: KeyFilter, which: PageOf, now: datetime
) -> Page[TeamKey]:
    """One page of the keys of all teams that the filter lets through; `now` decides which have expired."""
    query = _query()
    if narrow.team_id is not None:
        query = query.where(team_keys.c.team_id == narrow.team_id)
    if narrow.state is not None:
        query = query.where(*_in_state(narrow.state, now))
    return await _ORDER.read(connection, query, which, _key)


def _in_state(state: KeyState, now: datetime) -> list[ColumnElement[bool]]:
    """What `TeamKey.state` says, as conditions."""
    if state == "revoked":
        return [team_keys.c.revoked_at.is_not(None)]
    alive = team_keys.c.revoked_at.is_(None)
    if state == "expired":
        return [alive, team_keys.c.expires_at <= now]
    replaced = team_keys.c.replaced_by
    return [
        alive,
        or_(team_keys.c.expires_at.is_(None), team_keys.c.expires_at > now),
        replaced.is_not(None) if state == "rotated" else replaced.is_(None),
    ]


async def update(
    connection: AsyncConnection, actor: str, key_id: str, changes: Mapping[str, object]
) -> TeamKey:
    """The key with these fields of `NewKey` changed; 404, or 409 when it is revoked."""
    before = await find(connection, key_id, lock=True)
    if before.revoked_at is not None:
        raise errors.conflict("This key is revoked; issue a new one instead.", "key_revoked")
    changed = {name: value for name, value in changes.items() if getattr(before, name) != value}
    return await _change(connection, actor, before, "key.update", changed)


async def revoke(connection: AsyncConnection, actor: str, key_id: str, now: datetime) -> TeamKey:
    """Ends the key for good; repeating it changes nothing."""
    before = await find(connection, key_id, lock=True)
    return await _change(
        connection, actor, before, "key.revoke", {} if before.revoked_at else {"revoked_at": now}
    )


async def rotate(
    connection: AsyncConnection, actor: str, peppers: Peppers, key_id: str, overlap: tuple[datetime, int]
) -> tuple[TeamKey, IssuedKey]:
    """The old key, ending `overlap` = (now, seconds) from now, and its successor; 409 when it cannot be rotated.

    The successor has the same name, restrictions and expiry, and counts on the same quotas. Zero seconds revoke the
    old key at once.
    """
    now, seconds = overlap
    old = await find(connection, key_id, lock=True)
    _refuse_rotation(old, now)
    new = NewKey(**{name: getattr(old, name) for name in NewKey.__dataclass_fields__})
    issued = await _insert(connection, peppers, old.team_id, old.team, new, replaces=old.id)
    ends: dict[str, object] = {"replaced_by": issued.key.id}
    if seconds == 0:
        ends["revoked_at"] = now
    else:
        ends["expires_at"] = min(filter(None, (old.expires_at, now + timedelta(seconds=seconds))))
    old = await _change(connection, actor, old, "key.rotate", ends)
    return old, issued


def _refuse_rotation(key: TeamKey, now: datetime) -> None:
    state = key.state(now)
    if key.replaced_by is not None:
        raise errors.conflict(f"This key was already replaced by {key.replaced_by}.", "key_rotated")
    if state != "active":
        raise errors.conflict(f"This key is {state}; issue a new one instead.", f"key_{state}")


async def _insert(
    connection: AsyncConnection,
    peppers: Peppers,
    team_id: UUID,
    team: str,
    new: NewKey,
    replaces: str | None = None,
) -> IssuedKey:
    """Counts on the quotas of the key it replaces, else on its own."""
    made = make(TEAM_KEY)
    values = stored(asdict(new)) | {
        "id": made.public_id,
        "team_id": team_id,
        "digest": peppers.sign(made.text),
        "pepper": peppers.names[0],
        "last4": made.text[-4:],
    }
    if replaces is not None:
        shared = select(team_keys.c.quota_key_id).where(team_keys.c.id == replaces)
        values["quota_key_id"] = shared.scalar_subquery()
    statement = team_keys.insert().values(**values).returning(*_COLUMNS)
    row = (await connection.execute(statement)).one()
    return IssuedKey(_key(row, team), made.text)


async def _change(
    connection: AsyncConnection, actor: str, before: TeamKey, action: str, changed: Mapping[str, object]
) -> TeamKey:
    if not changed:
        return before
    statement = team_keys.update().where(team_keys.c.id == before.id).values(**stored(changed))
    after = _key((await connection.execute(statement.returning(*_COLUMNS))).one(), before.team)
    await _record(connection, actor, action, after, described(before, after, changed))
    return after


async def _record(
    connection: AsyncConnection, actor: str, action: str, key: TeamKey, detail: dict[str, object]
) -> None:
    await audit.write(
        connection, actor=actor, action=action, subject=("key", key.id), team_id=key.team_id, detail=detail
    )


def _query() -> Select[Any]:
    return select(*_COLUMNS, teams.c.slug.label("team")).join(teams, teams.c.id == team_keys.c.team_id)


def _unknown() -> errors.GatewayError:
    return errors.not_found("There is no key with this id.", "key_not_found")


def _key(row: Row[Any], team: str | None = None) -> TeamKey:
    values = frozen(dict(row._mapping))
    return TeamKey(**(values if team is None else values | {"team": team}))  # type: ignore[arg-type]
