"""All checks of an installation, at the same time where one does not need another; every question has a time-out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.catalog.price_file import load as load_prices
from gateway.catalog.price_parser import PriceBookError
from gateway.cli.doctor import database as postgres
from gateway.cli.doctor import machine, pixapi, redis
from gateway.cli.doctor.check import Check, fail, ok, warn
from gateway.cli.doctor.pixapi import Tried
from gateway.db.engine import Database
from gateway.errors import GatewayError
from gateway.pool.vault import Vault
from gateway.settings import Settings

CONNECTIONS = 2
PIXAPI_SECONDS = 60.0
QUESTION_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Findings:
    """Every check; `ok` when none has failed."""

    checks: list[Check]

    @property
    def ok(self) -> bool:
        return not any(check.state == "fail" for check in self.checks)


async def examine(settings: Settings, *, offline: bool, say: Callable[[str], None]) -> Findings:
    """Looks at everything; `say` is told what is being waited for."""
    own = settings.database
    database = Database(
        own.url, pool_size=CONNECTIONS, statement_timeout=own.statement_timeout, lock_timeout=own.lock_timeout
    )
    waiting = {"database", "Redis", "this machine"} | (set() if offline else {"Pixapi"})

    def done(what: str) -> None:
        waiting.discard(what)
        if waiting:
            say(f"Looking at {', '.join(sorted(waiting))}")

    say(f"Looking at {', '.join(sorted(waiting))}")
    try:
        async with asyncio.TaskGroup() as group:
            here = group.create_task(_told(asyncio.to_thread(machine.look, settings), "this machine", done))
            cache = group.create_task(_told(redis.look(settings), "Redis", done))
            asked = await postgres.look(database, settings)
            done("database")
            tried = await _ask_pixapi(settings, database if asked.usable else None, offline=offline)
            done("Pixapi")
    finally:
        await database.close()
    checks = [
        *judge_settings(settings.warnings),
        secrets(settings),
        *asked.checks,
        *cache.result(),
        *pixapi.reachable(tried, settings),
        *(pixapi.keys(tried) if asked.usable else []),
        *pixapi.clocks(datetime.now(UTC), asked.clocks, tried),
        *_prices(settings, tried),
        *here.result(),
    ]
    return Findings(checks)


def judge_settings(warnings: Sequence[str]) -> list[Check]:
    """What works and is probably not meant, a check each."""
    advice = "see docs/configuration.md; 'pixapi-gateway config show' prints what is in force"
    found = [warn("settings", warning, advice) for warning in warnings if "share one secret" not in warning]
    return found or [ok("settings", "every value can be used")]


def secrets(settings: Settings) -> Check:
    """Whether each secret is its own; how long they are is checked when settings are read."""
    doubles = [warning for warning in settings.warnings if "share one secret" in warning]
    if doubles:
        return warn("secrets", " ".join(doubles), "make each one with: openssl rand -base64 32")
    own = settings.secrets
    lists = (("master keys", own.master_keys), ("peppers", own.key_pepper))
    twice = [
        name for name, entries in lists if len({one.get_secret_value() for one in entries}) < len(entries)
    ]
    if twice:
        return warn("secrets", f"the {' and '.join(twice)} hold an entry twice", "take the second one away")
    counted = " and ".join(
        f"{len(entries)} {name if len(entries) > 1 else name[:-1]}" for name, entries in lists
    )
    more = any(len(entries) > 1 for _, entries in lists)
    return ok(
        "secrets", counted + ("; what still needs an old one: pixapi-gateway secrets verify" if more else "")
    )


async def _told(work: object, what: str, done: Callable[[str], None]) -> list[Check]:
    checks: list[Check] = await work  # type: ignore[misc]
    done(what)
    return checks


async def _ask_pixapi(settings: Settings, database: Database | None, *, offline: bool) -> list[Tried]:
    vault = Vault([key.get_secret_value() for key in settings.secrets.master_keys])
    try:
        async with asyncio.timeout(PIXAPI_SECONDS):
            return await pixapi.look(settings, database, vault, offline=offline)
    except (TimeoutError, GatewayError):  # the database went away in between: its own check has spoken
        return []


def _prices(settings: Settings, tried: list[Tried]) -> list[Check]:
    path = settings.config_dir / "models.toml"
    try:
        book = load_prices(path)
    except PriceBookError as error:
        return [fail("price book", f"{path}: {problem}", "correct it: gateways keep the last good one, and none starts")
                for problem in error.problems]  # fmt: skip
    return pixapi.prices(book, tried, refuse=settings.credits.unpriced == "refuse")
