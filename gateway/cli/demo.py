"""The quickstart's team, key and upstream key: made at the first start, found again at the next."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access import team_keys, teams
from gateway.access.key_format import TEAM_KEY, Peppers, parse
from gateway.credits import quotas
from gateway.credits.amount import MICRO, to_text
from gateway.db.engine import Database
from gateway.errors import GatewayError
from gateway.pool import upstream_keys
from gateway.pool.vault import Vault
from gateway.settings import Settings

ACTOR = "quickstart"
SLUG = "demo"
LIMIT = 1000 * MICRO


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo's user gets: the key, and the monthly limit in credits as text."""

    team_key: str
    limit: str


def prepare_demo(settings: Settings, label: str, secret: str, known_key: str | None) -> Demo:
    """Sees to it that team, quota, key and the one upstream key to use are there and active."""
    return asyncio.run(_prepare(settings, label, secret, known_key))


async def _prepare(settings: Settings, label: str, secret: str, known_key: str | None) -> Demo:
    database = Database(settings.database.url)
    peppers = Peppers([pepper.get_secret_value() for pepper in settings.secrets.key_pepper])
    vault = Vault([key.get_secret_value() for key in settings.secrets.master_keys])
    try:
        async with database.transaction() as connection:
            team = await _team(connection)
            limit = await _limit(connection, team)
            await _use_upstream_key(connection, vault, label, secret)
            key = known_key
            if key is None or not await _works(connection, key):
                new = team_keys.NewKey(name="quickstart")
                key = (await team_keys.issue(connection, ACTOR, peppers, team, new)).secret
    finally:
        await database.close()
    return Demo(key, limit)


async def _team(connection: AsyncConnection) -> teams.Team:
    try:
        return await teams.find(connection, SLUG)
    except GatewayError as error:
        if error.status != 404:
            raise
    team = await teams.create(connection, ACTOR, teams.NewTeam(name="Demo", slug=SLUG))
    await quotas.put(connection, ACTOR, quotas.Owner(team.id), "month", quotas.Limit(LIMIT))
    return team


async def _limit(connection: AsyncConnection, team: teams.Team) -> str:
    for quota in await quotas.of(connection, quotas.Owner(team.id)):
        if quota.period == "month":
            return to_text(quota.limit_micro)
    return "unlimited"


async def _works(connection: AsyncConnection, text: str) -> bool:
    parsed = parse(text, TEAM_KEY)
    if parsed is None:
        return False
    try:
        key = await team_keys.find(connection, parsed.public_id)
    except GatewayError as error:
        if error.status != 404:
            raise
        return False
    return key.revoked_at is None


async def _use_upstream_key(connection: AsyncConnection, vault: Vault, label: str, secret: str) -> None:
    """The wanted key active, the other kind off: sandbox and Pixapi do not know each other's keys."""
    for other in ("sandbox", "pixapi"):
        stored = await _stored(connection, other)
        if stored is not None and other != label and stored.state != "disabled":
            await upstream_keys.disable(connection, ACTOR, other)
    stored = await _stored(connection, label)
    if stored is not None and not await upstream_keys.has_secret(connection, vault, stored.id, secret):
        await upstream_keys.remove(connection, ACTOR, label, force=True)
        stored = None
    if stored is None:
        new = upstream_keys.NewUpstreamKey(label=label, secret=secret)
        await upstream_keys.add(connection, ACTOR, vault, new)
    elif stored.state != "active":
        await upstream_keys.enable(connection, ACTOR, label)


async def _stored(connection: AsyncConnection, label: str) -> upstream_keys.UpstreamKey | None:
    try:
        return await upstream_keys.find(connection, label)
    except GatewayError as error:
        if error.status != 404:
            raise
        return None
