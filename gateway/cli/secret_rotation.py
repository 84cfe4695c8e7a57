"""What `secrets rotate` and `verify` do: sealed rows under the first master key, keys under the first pepper."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.access import signatures
from gateway.access.key_format import Peppers
from gateway.access.signatures import Signed
from gateway.cli.local_api import failures, operator, settings_for
from gateway.db.engine import Database
from gateway.pool import sealing
from gateway.pool.sealing import Sealing
from gateway.pool.vault import Vault

LISTED = 20


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of this process, and the database they are for."""

    database: Database
    vault: Vault
    peppers: Peppers


async def rotate(config: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Seals anew what is not under the first master key, and lets gateways sign anew under the first pepper."""

    def step(looked: int, total: int) -> None:
        say(f"Sealing anew: {looked} of {total}")

    async with _opened(config) as own:
        changed = await sealing.rotate(own.database, own.vault, operator(), step)
        async with own.database.transaction() as connection:
            began = await signatures.begin(connection, operator(), own.peppers)
        return {"resealed": changed, "signing_began": began, **await _survey(own)}


async def verify(config: Path | None) -> dict[str, Any]:
    """What each master key and pepper is still needed for."""
    async with _opened(config) as own:
        return await _survey(own)


@asynccontextmanager
async def _opened(config: Path | None) -> AsyncIterator[Secrets]:
    settings = settings_for(config)
    own, secrets = settings.database, settings.secrets
    database = Database(
        own.url, pool_size=1, statement_timeout=own.statement_timeout, lock_timeout=own.lock_timeout
    )
    try:
        with failures():
            yield Secrets(
                database,
                Vault([key.get_secret_value() for key in secrets.master_keys]),
                Peppers([pepper.get_secret_value() for pepper in secrets.key_pepper]),
            )
    finally:
        await database.close()


async def _survey(own: Secrets) -> dict[str, Any]:
    async with own.database.autocommit() as connection:
        sealed = await sealing.survey(connection, own.vault)
        signed = await signatures.census(connection)
        waiting = await signatures.waiting(connection, own.peppers, LISTED)
    peppers = own.peppers.names
    return {
        "ok": not sealed.closed,
        "master_keys": [
            {"position": place + 1, "name": name, "secrets": count}
            for place, (name, count) in enumerate(zip(own.vault.names, sealed.under, strict=True))
        ],
        "unopenable": [{"kind": kind, "label": label} for kind, label in sealed.closed],
        "peppers": [_pepper(place + 1, name, signed) for place, name in enumerate(peppers)],
        "other_peppers": [_pepper(None, name, signed) for name in _others(signed, peppers)],
        "waiting": [
            {"kind": _KINDS[table], "id": ident, "last_used_at": None if last is None else last.isoformat()}
            for table, ident, last in waiting
        ],
        "advice": advice(sealed, signed, own.vault.names, peppers),
    }


def advice(
    sealed: Sealing, signed: list[Signed], masters: tuple[str, ...], peppers: tuple[str, ...]
) -> list[str]:
    """What may be taken away now, and what keeps the rest: a sentence each. Pure."""
    said = []
    if sealed.closed:
        labels = ", ".join(label for _, label in sealed.closed)
        said.append(f"No master key opens {labels}: put the one it was stored under back, or store it again.")
    for place, count in list(enumerate(sealed.under))[1:]:
        name = f"Entry {place + 1} of secrets.master_keys ({masters[place]})"
        if count:
            said.append(f"{name} is needed for {count}: run 'pixapi-gateway secrets rotate'.")
        elif not sealed.closed:
            said.append(f"{name} opens nothing any more and may be taken away.")
    unknown = sum(one.count for one in signed if one.pepper is None)
    for place, name in list(enumerate(peppers))[1:]:
        count = sum(one.count for one in signed if one.pepper == name) + unknown
        entry = f"Entry {place + 1} of secrets.key_pepper ({name})"
        if count:
            said.append(
                f"{entry} is needed for up to {count} keys and tokens: each comes under the first pepper when it "
                "is used next, once 'secrets rotate' was run. What is used no more can be revoked."
            )
        else:
            said.append(f"{entry} has signed nothing that still works and may be taken away.")
    gone = sum(one.count for one in signed if one.pepper is not None and one.pepper not in peppers)
    if gone:
        said.append(
            f"{gone} keys and tokens were signed with a pepper that is not in the list: they do not work."
        )
    return said


_KINDS = {"team_keys": "key", "admin_tokens": "admin-token"}


def _others(signed: list[Signed], peppers: tuple[str, ...]) -> list[str | None]:
    names = {one.pepper for one in signed} - set(peppers)
    return sorted(names, key=lambda name: name or "")


def _pepper(position: int | None, name: str | None, signed: list[Signed]) -> dict[str, Any]:
    """How many keys and tokens it has signed; without a name: of those it is not known."""
    counts = {one.table: one.count for one in signed if one.pepper == name}
    return {
        "position": position,
        "name": name,
        "keys": counts.get("team_keys", 0),
        "admin_tokens": counts.get("admin_tokens", 0),
    }
