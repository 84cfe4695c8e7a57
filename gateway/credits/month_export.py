"""A month in files: gzip'ed JSON lines a table, and a manifest that says how many rows and which credits they have.

`DIR/2026-08/{holds,ledger_entries,attempts,tasks,idempotency_records}.jsonl.gz` and `manifest.json`, written last. A
run that was stopped before leaves no manifest; the next one writes the files anew. One that was stopped after it is
known by the files of what is frozen, which come out the same; any other month that is there already is left alone.
Amounts are micro-credits, as in the tables.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.credits import prune_queries as queries
from gateway.credits.pruning import STATEMENT_SECONDS, Counts, Exported, MonthNotPrunedError, next_month
from gateway.db.engine import Database, allow
from gateway.ids import lowest_uuid7

MANIFEST = "manifest.json"
ROWS_AT_ONCE = 2000
_NAMES = {"ledger_entries": "entries", "idempotency_records": "records"}  # as `Counts` calls them


async def export(database: Database, month: date, folder: Path) -> Exported:
    """Writes a frozen month into `folder`/YYYY-MM in one snapshot; answers what the manifest says.

    Raises MonthNotPrunedError when another export is there, OSError when the folder cannot be written, GatewayError 503
    when Postgres cannot be asked.
    """
    place = folder / f"{month:%Y-%m}"
    await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
    start, end = (datetime.combine(day, datetime.min.time(), UTC) for day in (month, next_month(month)))
    span = {"low": lowest_uuid7(start), "high": lowest_uuid7(end)}
    async with database.transaction() as connection:
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        await allow(connection, STATEMENT_SECONDS)
        sums = (await connection.execute(queries.sums(month))).one()._asdict()
        files: dict[str, dict[str, Any]] = {}
        for name, query in queries.exports(month).items():
            path = place / f"{name}.jsonl.gz"
            files[path.name] = await _write(connection, query, span, _half_made(path))
    manifest = {
        "month": f"{month:%Y-%m}",
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "unit": "micro-credits, a millionth of a credit",
        "sums": sums,
        "files": files,
    }
    digest = await asyncio.to_thread(_finish, place, manifest)
    rows = {name.removesuffix(".jsonl.gz"): int(one["rows"]) for name, one in files.items()}
    counts = {_NAMES.get(name, name): count for name, count in rows.items()}
    return Exported(counts=Counts(settled=int(sums["settled"]), **counts), manifest_sha256=digest)


def check(place: Path) -> list[str]:
    """What is wrong with the export in a folder: a file that is missing, or is not what the manifest says."""
    manifest = json.loads((place / MANIFEST).read_text("utf-8"))
    found = []
    for name, said in manifest["files"].items():
        path = place / name
        if not path.exists():
            found.append(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != said["sha256"]:
            found.append(f"{name} is not what the manifest says")
    return found


async def _write(
    connection: AsyncConnection, query: TextClause, span: dict[str, Any], path: Path
) -> dict[str, Any]:
    """Rows, bytes and digest of the file that was written."""
    rows = 0
    with _private(path) as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
        result = await connection.stream(query, span, execution_options={"yield_per": ROWS_AT_ONCE})
        async for batch in result.scalars().partitions():
            lines = "".join(f"{line}\n" for line in batch).encode()
            await asyncio.to_thread(packed.write, lines)
            rows += len(batch)
    return await asyncio.to_thread(_described, path, rows)


def _described(path: Path, rows: int) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
        os.fsync(file.fileno())
    return {"rows": rows, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _finish(place: Path, manifest: dict[str, Any]) -> str:
    """Gives the files their names and writes the manifest, whose digest it answers."""
    paths, there = [place / name for name in manifest["files"]], place / MANIFEST
    if there.exists() and not _is_of_the_same(there, manifest):
        for path in paths:
            _half_made(path).unlink()
        raise MonthNotPrunedError(
            f"{place} has another export, of another installation or another time; nothing in it was changed. "
            "Name another folder."
        )
    there.unlink(missing_ok=True)
    for path in paths:
        _half_made(path).rename(path)
    _sync(place)
    words = (json.dumps(manifest, indent=2) + "\n").encode()
    with _private(_half_made(there)) as file:
        file.write(words)
        file.flush()
        os.fsync(file.fileno())
    _half_made(there).rename(there)
    _sync(place)
    _sync(place.parent)
    return hashlib.sha256(words).hexdigest()


def _is_of_the_same(path: Path, manifest: dict[str, Any]) -> bool:
    """Whether the manifest that is there has the same holds, entries and sends. Tasks and records may change."""
    frozen = [f"{name}.jsonl.gz" for name in queries.PARENTS]
    try:
        files = json.loads(path.read_bytes())["files"]
        return all(files[name]["sha256"] == manifest["files"][name]["sha256"] for name in frozen)
    except (ValueError, KeyError, TypeError):
        return False


def _sync(folder: Path) -> None:
    """The names in it are there after a loss of power too."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _half_made(path: Path) -> Path:
    return path.with_suffix(".part")


def _private(path: Path) -> Any:
    """A file for its owner alone: it names teams, keys and requests."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
