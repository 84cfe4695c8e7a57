"""Three months of use that never was, for looking at dashboard and reports: what a real ledger would have left.

Teams, keys, calls, quotas, tasks, refusals, audit, alerts: everything fits together, so `ledger verify` finds no
difference. It all ends now, and is the same for the same seed but for that. Keys and tokens are nobody's: none of
them lets anybody in. The URL and the master key come from the gateway's own settings.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from sqlalchemy import make_url

from benchmarks.past import alerts, audit, refused, rows, standing
from benchmarks.past.calls import Call, Scene, calls
from benchmarks.past.cast import SETTING_UP, Span, cast, uuid7
from benchmarks.past.turns import turn
from gateway.catalog import price_file
from gateway.pool.vault import Vault
from gateway.settings import SettingsError, load

MODELS = Path(__file__).parents[1] / "config" / "models.toml"
SHORTEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How much, of which chance; `add` also to a ledger that has holds."""

    days: int = 92
    calls_per_day: float = 250.0
    seed: int = 1
    add: bool = False


def fill(
    url: str, wanted: Wanted, vault: Vault | None = None, told: Callable[[str], None] = lambda _: None
) -> int:
    """Fills a migrated database in one transaction; how many holds there are now that were not before.

    SystemExit when its ledger is not empty, unless that is wanted. Without a vault upstream keys and the webhook have
    no secret: a gateway leaves them alone.
    """
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        with connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 0")
            number = _fill(connection, wanted, vault, told)
        connection.execute("VACUUM (ANALYZE)")
    return number


def _fill(
    connection: psycopg.Connection[Any], wanted: Wanted, vault: Vault | None, told: Callable[[str], None]
) -> int:
    known = _one(connection, "SELECT count(*) FROM holds")
    if known and not wanted.add:
        raise SystemExit(f"The ledger has {known} holds; --add puts invented ones beside them.")
    now: datetime = _one(connection, "SELECT now()").astimezone(UTC)
    span = Span(now - timedelta(days=wanted.days), now)
    connection.execute(
        "SELECT gateway_ensure_partitions(%s::date, %s)", [span.start - SETTING_UP, wanted.days // 28 + 3]
    )
    chance = Random(f"{wanted.seed} {known}" if known else wanted.seed)
    taken = {
        row[0]
        for row in connection.execute("SELECT slug FROM teams UNION ALL SELECT label FROM upstream_keys")
    }
    scene = Scene(chance, span, cast(chance, span, taken), price_file.load(MODELS))
    people = audit.office(scene)
    told("calls")
    found = calls(scene, wanted.calls_per_day)
    turn(scene, found, people.other)
    _write(connection, scene, (people, found), (vault, told))
    return len(found)


def _write(
    connection: psycopg.Connection[Any],
    scene: Scene,
    made: tuple[audit.Office, list[Call]],
    given: tuple[Vault | None, Callable[[str], None]],
) -> None:
    (people, found), (vault, told), now = made, given, scene.span.now
    periods = rows.periods(connection, scene.cast.teams, scene.span.start - SETTING_UP)
    counters = standing.counted(scene.cast.teams, found, periods)
    standing.set_limits(counters, scene.span)
    standing.mark_shadows(counters)
    refused.used_last(found)
    entries = audit.entries(scene, people, found)
    rows.write_cast(connection, scene.cast, vault)
    rows.write_counters(connection, counters, now)
    rows.write_calls(connection, found, now, told)
    told("audit, refusals and alerts")
    rows.copy(
        connection,
        "admin_tokens",
        "id name role digest last4 last_used_at created_at",
        (
            (ident, name, role, scene.chance.randbytes(32), ident.hex[-4:], now - timedelta(hours=1), at)
            for ident, name, role, at in people.tokens
        ),
    )
    refusals = refused.refusals(scene, standing.current(counters, now))
    rows.copy(
        connection,
        "refusals",
        "id request_id at team_id key_id route operation model status reason message client detail",
        ((*one.row, json.dumps(one.detail)) for one in refusals),
    )
    webhook = alerts.write(connection, scene, alerts.alerts(scene, counters, found), vault)
    detail = {"origin": "https://alerts.example.com", "format": "standard"}
    entries.append(
        audit.Entry(scene.span.at(0.5), people.lead, "webhook.add", ("webhook", str(webhook)), detail)
    )
    _write_audit(connection, scene, entries)


def _write_audit(connection: psycopg.Connection[Any], scene: Scene, entries: Sequence[audit.Entry]) -> None:
    rows.copy(
        connection,
        "audit_entries",
        "id actor action subject_type subject_id team_id detail made_at",
        (
            (
                uuid7(scene.chance, one.at),
                one.actor,
                one.action,
                *one.subject,
                one.team,
                json.dumps(one.detail),
                one.at,
            )
            for one in sorted(entries, key=lambda entry: entry.at)
        ),
    )


def _one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return None if row is None else row[0]


def main(arguments: Sequence[str]) -> None:
    plain = Wanted()
    parser = argparse.ArgumentParser(prog="python -m benchmarks history", description=__doc__)
    parser.add_argument("--url", help="of a migrated database; default: the setting database.url")
    parser.add_argument("--days", type=int, default=plain.days, help=f"at least {SHORTEST}")
    parser.add_argument("--calls-per-day", type=float, default=plain.calls_per_day, help="on average")
    parser.add_argument("--seed", type=int, default=plain.seed)
    parser.add_argument("--add", action="store_true", help="also to a ledger that has holds")
    options = parser.parse_args(arguments)
    if options.days < SHORTEST or options.calls_per_day <= 0:
        parser.error(f"--days must be at least {SHORTEST}, --calls-per-day more than 0")
    url, keys = _settings(options.url)
    if not keys:
        print("Without secrets.master_keys upstream keys and the webhook get no secret.", flush=True)
    wanted = Wanted(
        days=options.days, calls_per_day=options.calls_per_day, seed=options.seed, add=options.add
    )
    began = time.perf_counter()
    number = fill(
        url,
        wanted,
        Vault(keys) if keys else None,
        lambda what: print(f"{what} …", flush=True),
    )
    print(f"{number} holds over {wanted.days} days in {time.perf_counter() - began:.1f} s")


def _settings(url: str | None) -> tuple[str, list[str]]:
    """The database's URL and the master keys; with a URL given the settings need not be complete."""
    try:
        settings = load()
    except SettingsError as error:
        if url is not None:
            return url, []
        raise SystemExit(f"The settings cannot be used:\n{error}") from None
    return url or settings.database.url, [key.get_secret_value() for key in settings.secrets.master_keys]
