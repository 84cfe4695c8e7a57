"""Teams: who the credits belong to. Each verb runs on its caller's connection and writes its audit entry there."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.db import audit
from gateway.db.changes import described, frozen, listed, stored
from gateway.db.paging import Keyset, Page, PageOf
from gateway.db.tables import NOW, teams
from gateway.ids import uuid7

SLUG = re.compile(r"[a-z0-9](?:-?[a-z0-9])*")
LONGEST_SLUG = 63
_ORDER = Keyset("teams", teams.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team as stored. `allowed_models` None means every priced model; the limits None mean none.

    `unlimited` allows the team to have no enforced quota; a quota it has applies all the same.
    """

    id: UUID
    slug: str
    name: str
    time_zone: str
    cost_center: str | None
    allowed_models: tuple[str, ...] | None
    requests_per_minute: int | None
    max_in_flight: int | None
    unlimited: bool
    suspended_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTeam:
    """What a team is made of. Without a slug it is derived from the name."""

    name: str
    slug: str | None = None
    time_zone: str = "UTC"
    cost_center: str | None = None
    allowed_models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    max_in_flight: int | None = None
    unlimited: bool = False


def slug_from(name: str) -> str:
    """The slug a name suggests: ASCII letters and digits, hyphens between; `team` when nothing is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[:LONGEST_SLUG].strip("-")
    if not slug:
        return "team"
    return f"team-{slug}"[:LONGEST_SLUG] if looks_like_id(slug) else slug


def looks_like_id(text: str) -> bool:
    """Whether `text` would be read as a team's id rather than its slug."""
    return _id_in(text) is not None


async def create(connection: AsyncConnection, actor: str, new: NewTeam) -> Team:
    """A new team; 409 when its slug is taken. The caller sees to its quota in the same transaction."""
    values = asdict(new) | {"id": uuid7(), "slug": new.slug or slug_from(new.name)}
    statement = insert(teams).values(**stored(values)).on_conflict_do_nothing(index_elements=["slug"])
    row = (await connection.execute(statement.returning(*teams.c))).one_or_none()
    if row is None:
        raise await _slug_taken(connection, values["slug"])
    team = _team(row)
    await audit.write(
        connection,
        actor=actor,
        action="team.create",
        subject=("team", str(team.id)),
        team_id=team.id,
        detail=listed(team, asdict(new)),
    )
    return team


async def find(connection: AsyncConnection, team: str, *, lock: bool = False) -> Team:
    """The team with this id or slug; 404 when there is none. `lock` keeps others from changing it meanwhile."""
    team_id = _id_in(team)
    if team_id is None and (len(team) > LONGEST_SLUG or not SLUG.fullmatch(team)):
        raise _unknown()
    query = select(teams).where(teams.c.slug == team if team_id is None else teams.c.id == team_id)
    row = (await connection.execute(query.with_for_update(key_share=True) if lock else query)).one_or_none()
    if row is None:
        raise _unknown()
    return _team(row)


async def by_ids(connection: AsyncConnection, team_ids: Collection[UUID]) -> dict[UUID, Team]:
    """Those of these teams that there are."""
    rows = await connection.execute(select(teams).where(teams.c.id.in_(team_ids)))
    return {row.id: _team(row) for row in rows}


async def page(connection: AsyncConnection, which: PageOf) -> Page[Team]:
    """One page of all teams."""
    return await _ORDER.read(connection, select(teams), which, _team)


async def update(connection: AsyncConnection, actor: str, team: str, changes: Mapping[str, object]) -> Team:
    """The team with these fields of `NewTeam` changed; 404, or 409 when a new slug is taken."""
    before = await find(connection, team, lock=True)
    changed = {name: value for name, value in changes.items() if getattr(before, name) != value}
    return await _change(connection, actor, before, "team.update", changed)


async def suspend(connection: AsyncConnection, actor: str, team: str) -> Team:
    """Stops every key of the team, as it was: repeating it changes nothing."""
    before = await find(connection, team, lock=True)
    changed = {} if before.suspended_at else {"suspended_at": NOW}
    return await _change(connection, actor, before, "team.suspend", changed)


async def resume(connection: AsyncConnection, actor: str, team: str) -> Team:
    """Lets the team's keys work again; repeating it changes nothing."""
    before = await find(connection, team, lock=True)
    changed = {"suspended_at": None} if before.suspended_at else {}
    return await _change(connection, actor, before, "team.resume", changed)


async def _change(
    connection: AsyncConnection, actor: str, before: Team, action: str, changed: Mapping[str, object]
) -> Team:
    if not changed:
        return before
    statement = teams.update().where(teams.c.id == before.id).values(**stored(changed)).returning(*teams.c)
    try:
        async with connection.begin_nested():
            after = _team((await connection.execute(statement)).one())
    except IntegrityError:
        raise await _slug_taken(connection, str(changed["slug"])) from None
    await audit.write(
        connection,
        actor=actor,
        action=action,
        subject=("team", str(after.id)),
        team_id=after.id,
        detail=described(before, after, changed),
    )
    return after


async def _slug_taken(connection: AsyncConnection, slug: str) -> errors.GatewayError:
    query = select(teams.c.slug).where(teams.c.slug.startswith(slug[: LONGEST_SLUG - 6], autoescape=True))
    free = free_slug(slug, set((await connection.execute(query)).scalars()))
    return errors.conflict(f"slug: '{slug}' belongs to another team; '{free}' is free", "slug_taken")


def free_slug(slug: str, taken: set[str]) -> str:
    """The first of `slug-2`, `slug-3`, … that is not taken and no longer than a slug may be."""
    number = 2
    while True:
        candidate = f"{slug[: LONGEST_SLUG - 1 - len(str(number))].rstrip('-')}-{number}"
        if candidate not in taken:
            return candidate
        number += 1


def _unknown() -> errors.GatewayError:
    return errors.not_found("There is no team with this id or slug.", "team_not_found")


def _id_in(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _team(row: Row[Any]) -> Team:
    return Team(**frozen(dict(row._mapping)))  # type: ignore[arg-type]
