"""Postgres: reachable, new enough, at this release's schema, guarded by its triggers, and with room for the months to
come; and what lies in it that somebody should see to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.cli.doctor.check import Check, fail, ok, warn, worst
from gateway.db import schema
from gateway.db.engine import Database, StatementRefusedError
from gateway.errors import GatewayError
from gateway.settings import Settings
from gateway.settings.secrets import mask_address

SECONDS = 15.0
LEAST_VERSION = 14
GUARDED = ("audit_entries", "carried_usage", "ledger_entries", "pruned_months")
PARTITIONED = ("attempts", "holds", "ledger_entries")
UPGRADE = "run: pixapi-gateway db upgrade"


@dataclass(frozen=True, slots=True)
class Server:
    """What any Postgres says of itself. Time-outs in milliseconds, as they hold on our connection."""

    version: int  # 180002
    standby: bool
    superuser: bool
    statement_timeout: int
    lock_timeout: int
    connections: int  # that this login may have at most
    revision: str | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Contents:
    """What a migrated database holds. `unguarded`: tables whose trigger is missing or off; `missing`: partitions of
    this month and the next; `may_make`: the login may create more; `stray`: default partitions with rows of months that
    were not pruned; `alerts` None: there is no such table."""

    unguarded: Sequence[str] = ()
    missing: Sequence[str] = ()
    may_make: bool = True
    stray: Sequence[str] = ()
    unknown_holds: int = 0
    oldest_unknown: datetime | None = None
    alerts: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The answer of a database: the checks it has come to, whether the schema is good, and its clock and
    ours at one moment."""

    checks: list[Check] = field(default_factory=list)
    clocks: tuple[datetime, datetime] | None = None
    usable: bool = False


def server(found: Server, settings: Settings) -> list[Check]:
    """Version, role and rights."""
    wrong, name, major = [], "database", found.version // 10_000
    if found.standby:
        text = "is a standby, which takes no writes"
        wrong.append(
            fail(name, text, "set database.url to the primary, or add target_session_attrs=read-write")
        )
    if major < LEAST_VERSION:
        wrong.append(fail(name, f"Postgres {major}", f"install Postgres {LEAST_VERSION} or newer"))
    if found.superuser:
        advice = "give the gateway a login of its own: a superuser can switch the ledger's triggers off"
        wrong.append(warn(name, f"Postgres {major}; the login is a superuser", advice))
    wanted = settings.database_connections * settings.server.workers
    if 0 <= found.connections < wanted:
        text = f"takes {found.connections} connections, and {settings.server.workers} processes want {wanted}"
        wrong.append(warn(name, text, "raise max_connections, or lower database.pool_size"))
    return worst(wrong, ok(name, f"Postgres {major}, reached with a login that is no superuser"))


def timeouts(found: Server, settings: Settings) -> Check:
    """Whether the time-outs that every connection asks for hold on it."""
    pairs = (
        ("statement_timeout", settings.database.statement_timeout, found.statement_timeout),
        ("lock_timeout", settings.database.lock_timeout, found.lock_timeout),
    )
    lost = [f"{name} is {actual} ms instead of {wanted * 1000:.0f}" for name, wanted, actual in pairs
            if actual != int(wanted * 1000)]  # fmt: skip
    if lost:
        advice = "let the pooler in between keep what a session sets, or set both with ALTER ROLE … SET"
        return fail("time-outs", "; ".join(lost), advice)
    return ok("time-outs", f"a statement {pairs[0][1]:g} s, a lock {pairs[1][1]:g} s")


def migrations(revision: str | None, head: str, known: frozenset[str]) -> Check:
    """Whether the schema is this release's."""
    if revision == head:
        return ok("migrations", f"at {head}")
    if revision is None:
        return fail("migrations", f"the database is empty, and this release needs {head}", UPGRADE)
    if revision in known:
        return fail("migrations", f"at {revision}, and this release needs {head}", UPGRADE)
    advice = "update this command too; older gateways go on serving meanwhile"
    return warn("migrations", f"at {revision}, which is newer than this release ({head})", advice)


def contents(found: Contents, now: datetime) -> list[Check]:
    """Triggers, partitions, holds and alerts."""
    return [
        _ledger(found.unguarded),
        *_partitions(found),
        _holds(found, now),
        *([] if found.alerts is None else [_alerts(found.alerts)]),
    ]


def _ledger(unguarded: Sequence[str]) -> Check:
    if unguarded:
        advice = (
            "find out who took the trigger away; run 'pixapi-gateway ledger verify', then restore the schema"
        )
        return fail("append-only", f"nothing keeps {', '.join(unguarded)} from being changed", advice)
    return ok("append-only", "ledger and audit refuse changes")


def _partitions(found: Contents) -> list[Check]:
    wrong, name = [], "partitions"
    if found.missing:
        text = f"there is none for {', '.join(found.missing)}"
        # A gateway makes them when it starts and every 6 h, so something keeps it from that.
        wrong.append(warn(name, text, f"see the log of a gateway for what is in the way; then {UPGRADE}"))
    if not found.may_make:
        advice = "let the login own the tables, or every month, with one that does, " + UPGRADE
        wrong.append(warn(name, "the login may not make those of the coming months", advice))
    if found.stray:
        advice = f"nothing is lost; to move the rows into months of their own, in a quiet minute {UPGRADE}"
        wrong.append(warn(name, f"rows lie in {', '.join(found.stray)}", advice))
    return worst(wrong, ok(name, "this month's and the next month's are there, the default ones empty"))


def _holds(found: Contents, now: datetime) -> Check:
    if not found.unknown_holds or found.oldest_unknown is None:
        return ok("unknown holds", "none is older than an hour")
    hours = (now - found.oldest_unknown).total_seconds() / 3600
    advice = "compare with Pixapi's own log: pixapi-gateway holds list --state unknown, then holds resolve"
    return warn(
        "unknown holds", f"{found.unknown_holds} older than an hour, the oldest {hours:.0f} h", advice
    )


def _alerts(count: int) -> Check:
    if count:
        return warn("alerts", f"{count} open", "see them: pixapi-gateway alerts list")
    return ok("alerts", "none is open")


async def look(database: Database, settings: Settings) -> Asked:
    """Asks it everything but the upstream keys."""
    try:
        async with asyncio.timeout(SECONDS), database.autocommit() as connection:
            found = await _server(connection)
            clocks = (found.now, datetime.now(UTC))
            state = migrations(found.revision, schema.head(), schema.known())
            checks = [*server(found, settings), timeouts(found, settings), state]
            if state.state != "fail":
                checks += contents(await _contents(connection), found.now)
            return Asked(checks, clocks, state.state != "fail")
    except TimeoutError:
        return Asked([_unreachable(settings, f"no answer in {SECONDS:g} s")])
    except GatewayError as error:
        return Asked([_unreachable(settings, _reason(error))])
    except StatementRefusedError as error:
        advice = "give the login the rights of the tables' owner, or restore the schema"
        return Asked([fail("database", f"refuses a question: {error}", advice)])


def _unreachable(settings: Settings, reason: str) -> Check:
    advice = "start it, or correct database.url; nothing works without it"
    return fail("database", f"{mask_address(settings.database.url)} cannot be reached ({reason})", advice)


def _reason(error: GatewayError) -> str:
    cause = getattr(error.__cause__, "orig", None) or error.__cause__
    known = isinstance(cause, psycopg.Error | OSError)
    return str(cause).splitlines()[0] if known and str(cause) else error.message


async def _server(connection: AsyncConnection) -> Server:
    row = (await connection.execute(_SERVER)).one()
    revision = None
    if row.versioned:
        revision = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return Server(
        version=row.version,
        standby=row.standby,
        superuser=row.superuser,
        statement_timeout=row.statement_timeout,
        lock_timeout=row.lock_timeout,
        connections=row.connections,
        revision=revision,
        now=row.now,
    )


async def _contents(connection: AsyncConnection) -> Contents:
    row = (await connection.execute(_UNKNOWN)).one()
    return Contents(
        unguarded=await _column(connection, _UNGUARDED, {"tables": list(GUARDED)}),
        missing=await _column(connection, _MISSING, {"tables": list(PARTITIONED)}),
        may_make=bool(await connection.scalar(MAY_MAKE_TABLES)),
        stray=[table for table in PARTITIONED if await connection.scalar(_stray(table))],
        unknown_holds=row.number,
        oldest_unknown=row.oldest,
        alerts=await _open_alerts(connection),
    )


async def _open_alerts(connection: AsyncConnection) -> int | None:
    if not await connection.scalar(_HAS_ALERTS):
        return None
    count: int = await connection.scalar(text("SELECT count(*) FROM alerts WHERE resolved_at IS NULL")) or 0
    return count


async def _column(connection: AsyncConnection, query: Any, parameters: dict[str, Any]) -> list[str]:
    return [str(value) for value in (await connection.execute(query, parameters)).scalars()]


def _stray(table: str) -> Any:
    key = "id" if table == "holds" else "hold_id"
    # Of pruned months a few rows stay, see gateway/credits/pruning.py.
    return text(f"""
        SELECT EXISTS (SELECT FROM {table}_default WHERE {key} >= coalesce(
            (SELECT gateway_month_bound((max(month) + interval '1 month')::date) FROM pruned_months),
            gateway_month_bound('1970-01-01')))
    """)  # noqa: S608 - one of PARTITIONED


_SERVER = text("""
SELECT current_setting('server_version_num')::int AS version,
       pg_is_in_recovery() AS standby,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       (SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout') AS statement_timeout,
       (SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout') AS lock_timeout,
       (SELECT CASE rolconnlimit WHEN -1 THEN current_setting('max_connections')::int
               - current_setting('superuser_reserved_connections')::int ELSE rolconnlimit END
        FROM pg_roles WHERE rolname = current_user) AS connections,
       to_regclass('alembic_version') IS NOT NULL AS versioned,
       clock_timestamp() AS now
""")
_UNGUARDED = text("""
SELECT wanted FROM unnest(CAST(:tables AS text[])) AS wanted
WHERE (SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass(wanted) AND tgenabled IN ('O', 'A')
       AND tgname IN ('append_only', 'append_only_truncate')) < 2
ORDER BY wanted
""")
_MISSING = text("""
SELECT parent || to_char(current_date + months * interval '1 month', '_YYYY_MM') AS child
FROM unnest(CAST(:tables AS text[])) AS parent, generate_series(0, 1) AS months
WHERE to_regclass(parent || to_char(current_date + months * interval '1 month', '_YYYY_MM')) IS NULL
ORDER BY child
""")
# To attach one takes the owner's rights, to make one those of the schema.
MAY_MAKE_TABLES = text("""
SELECT pg_has_role(relowner, 'USAGE') AND has_schema_privilege(relnamespace, 'CREATE')
FROM pg_class WHERE oid = 'holds'::regclass
""")
_UNKNOWN = text("""
SELECT count(*) AS number, min(unknown_at) AS oldest FROM holds
WHERE state = 'unknown' AND unknown_at < now() - interval '1 hour'
""")
_HAS_ALERTS = text("""
SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('alerts') AND attname = 'resolved_at')
""")
