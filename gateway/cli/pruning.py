"""What `db prune` does: proves the ledger, takes whole months out one after the other, and proves it again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from gateway.cli.local_api import failures, operator, settings_for
from gateway.cli.output import FAILED, CommandFailed
from gateway.credits import month_export, pruning
from gateway.credits.amount import to_text
from gateway.credits.pruning import Counts, Planned
from gateway.credits.rollups import Rollups
from gateway.credits.verify import Proof, verify
from gateway.db.engine import Database, LockedError, StatementRefusedError
from gateway.db.partitions import ensure_partitions

PASSES, PASS_SECONDS = 40, 0.5

Say = Callable[[str], None]


async def plan(config: Path | None, before: date, say: Say) -> list[dict[str, Any]]:
    """The months that would go, with what is in them and what is in the way; changes nothing of them."""
    async with _opened(config) as database:
        await _prepare(database, say)
        return [_planned(one) for one in await pruning.survey(database, before)]


async def prune(config: Path | None, before: date, export: Path | None, say: Say) -> dict[str, Any]:
    """Takes out every month before; raises CommandFailed before anything is changed when one of them may not go."""
    async with _opened(config) as database:
        return await prune_in(database, before, export, say, operator())


async def prune_in(
    database: Database, before: date, export: Path | None, say: Say, actor: str
) -> dict[str, Any]:
    """The same on a database; `say` is told what comes next."""
    async with pruning.only_run(database):
        return await _prune(database, before, export, say, actor)


async def _prune(
    database: Database, before: date, export: Path | None, say: Say, actor: str
) -> dict[str, Any]:
    say("Looking for what a stopped run left")
    left_over = await pruning.drop_left_over(database)
    await _prepare(database, say)
    months = await pruning.survey(database, before)
    if blocked := [f"{one.month:%Y-%m}: {'; '.join(one.obstacles)}" for one in months if one.obstacles]:
        raise CommandFailed(FAILED, "nothing was pruned.\n" + "\n".join(blocked))
    if months:
        await _prove(database, say, "nothing was pruned")
    done = [await _one(database, one.month, export, say, actor) for one in months]
    if months:
        await _prove(database, say, "the months are gone")
    return {"ok": True, "months": done, "left_over": left_over}


async def _one(database: Database, month: date, export: Path | None, say: Say, actor: str) -> dict[str, Any]:
    name = f"{month:%Y-%m}"
    say(f"{name}: freezing")
    await pruning.freeze(database, month)
    exported = None
    if export is not None:
        say(f"{name}: exporting")
        exported = await month_export.export(database, month, export)
    pruned = await pruning.take_out(database, actor, month, exported, lambda what: say(f"{name}: {what}"))
    say(f"{name}: dropping")
    await pruning.drop_left_over(database)
    digest = None if exported is None else exported.manifest_sha256
    return {
        "month": name,
        **_counted(pruned.counts),
        "kept": pruned.kept,
        "carried": pruned.carried,
        "manifest_sha256": digest,
    }


async def _prepare(database: Database, say: Say) -> None:
    """Rows of a default partition into their months, and days that are over into their sums."""
    say("Summing days")
    await ensure_partitions(database)
    rollups = Rollups(database)
    for number in range(PASSES):
        # The first pass notes which transactions there are, the next one finds them ended.
        if not await rollups.once() and number:
            return
        await asyncio.sleep(PASS_SECONDS if not number else 0)


async def _prove(database: Database, say: Say, so_far: str) -> None:
    say("Comparing every hold, entry and counter")
    async with database.transaction() as connection:
        proof: Proof = await verify(connection, in_turn=True, statement_seconds=pruning.STATEMENT_SECONDS)
    if not proof.ok:
        found = f"{so_far}: {len(proof.differences)} differences in the ledger"
        raise CommandFailed(FAILED, f"{found}; see 'pixapi-gateway ledger verify'.")


@asynccontextmanager
async def _opened(config: Path | None) -> AsyncIterator[Database]:
    own = settings_for(config).database
    database = Database(
        own.url, pool_size=2, statement_timeout=own.statement_timeout, lock_timeout=own.lock_timeout
    )
    try:
        with failures():
            yield database
    except LockedError:
        message = "the tables were in use all the time; what was begun is taken up by the next run."
        raise CommandFailed(FAILED, message) from None
    except StatementRefusedError as error:
        message = f"Postgres refuses: {error} Run it with the login that owns the tables."
        raise CommandFailed(FAILED, message) from None
    except OSError as error:
        raise CommandFailed(FAILED, f"the export cannot be written: {error}") from None
    finally:
        await database.close()


def _planned(one: Planned) -> dict[str, Any]:
    return {"month": f"{one.month:%Y-%m}", **_counted(one.counts), "in_the_way": list(one.obstacles)}


def _counted(counts: Counts) -> dict[str, Any]:
    return asdict(counts) | {"settled": to_text(counts.settled)}


def names(months: Iterable[dict[str, Any]]) -> str:
    return ", ".join(one["month"] for one in months)
