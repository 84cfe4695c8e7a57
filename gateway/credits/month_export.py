"""A month in files: gzip'ed JSON lines a table, and a manifest that says how many rows and which credits they have.

`DIR/2026-08/{holds,ledger_entries,attempts,tasks,idempotency_records}.jsonl.gz` and `manifest.json`, written last. A
run that was stopped leaves no manifest; the next one writes the files anew. Amounts are micro-credits, as in the
tables.
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
from gateway.credits.pruning import STATEMENT_SECONDS, Counts, Exported, next_month
from gateway.db.engine import Database, allow
from gateway.ids import lowest_uuid7

MANIFEST = "manifest.json"
ROWS_AT_ONCE = 2000
_NAMES = {"ledger_entries": "entries", "idempotency_records": "records"}  # as `Counts` calls them


async def export(database: Database, month: date, folder: Path) -> Exported:
    """Writes a frozen month into `folder`/YYYY-MM in one snapshot; answers what the manifest says.

    Raises OSError when the folder cannot be written, GatewayError 503 when Postgres cannot be asked.
    """
    place = folder / f"{month:%Y-%m}"
    await asyncio.to_thread(_make, place)
    start, end = (datetime.combine(day, datetime.min.time(), UTC) for day in (month, next_month(month)))
    span = {"low": lowest_uuid7(start), "high": lowest_uuid7(end)}
    async with database.transaction() as connection:
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        await allow(connection, STATEMENT_SECONDS)
        sums = (await connection.execute(queries.sums(month))).one()._asdict()
        files: dict[str, dict[str, Any]] = {}
        for name, query in queries.exports(month).items():
            files[name] = await _write(connection, query, span, place / f"{name}.jsonl.gz")
    counts = {_NAMES.get(name, name): int(one["rows"]) for name, one in files.items()}
    manifest = {
        "month": f"{month:%Y-%m}",
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "unit": "micro-credits, a millionth of a credit",
        "sums": sums,
        "files": {f"{name}.jsonl.gz": one for name, one in files.items()},
    }
    digest = await asyncio.to_thread(_finish, place / MANIFEST, json.dumps(manifest, indent=2) + "\n")
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
    half_made, rows = path.with_suffix(".part"), 0
    with _private(half_made) as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
        result = await connection.stream(query, span, execution_options={"yield_per": ROWS_AT_ONCE})
        async for batch in result.scalars().partitions():
            lines = "".join(f"{line}\n" for line in batch).encode()
            await asyncio.to_thread(packed.write, lines)
            rows += len(batch)
    return await asyncio.to_thread(_described, half_made, path, rows)


def _described(half_made: Path, path: Path, rows: int) -> dict[str, Any]:
    digest = hashlib.sha256()
    with half_made.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
        os.fsync(file.fileno())
    half_made.rename(path)
    return {"rows": rows, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _make(place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / MANIFEST).unlink(missing_ok=True)  # of a run that was stopped before it could be used


def _finish(path: Path, words: str) -> str:
    half_made = path.with_suffix(".part")
    with _private(half_made) as file:
        file.write(words.encode())
        file.flush()
        os.fsync(file.fileno())
    half_made.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the names too are there after a loss of power
    finally:
        os.close(folder)
    return hashlib.sha256(words.encode()).hexdigest()


def _private(path: Path) -> Any:
    """A file for its owner alone: it names teams, keys and requests."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
