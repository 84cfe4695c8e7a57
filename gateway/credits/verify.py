"""The proof: entries = counters = holds = usage = task costs, in one snapshot; and the repair of what is derived.

Each fault is named once. A hold whose entries are not those its row calls for is disputed: it is reported, and what it
may or may not have added elsewhere counts there as a range. A counter that is gone, with its quota or by a change of
time zone, must have been emptied by its entries, and no open hold may still be on it. Of pruned months their entries
were carried forward, and usage is compared by days with what was carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.credits import counters, rollup_queries, rollups
from gateway.credits import verify_queries as queries
from gateway.credits.amount import to_text
from gateway.credits.pruning import pruned_until
from gateway.db import audit
from gateway.db.engine import LOCK_NOT_AVAILABLE, allow

# Of one kind; more are counted in a last line.
MOST_DIFFERENCES = 1000
STATEMENT_SECONDS = 120
LOCK_SECONDS = 10
# LOCK TABLE takes no snapshot, as any query would. The first is the turn of proofs and is in nobody else's way; the
# second keeps months from being taken out, or moved, between the snapshot and the reading of the tables.
_IN_TURN = text("LOCK TABLE pruned_months IN SHARE UPDATE EXCLUSIVE MODE")
_ALONE = text(f"{_IN_TURN} NOWAIT")
_STAY = text("LOCK TABLE holds, ledger_entries, attempts IN ACCESS SHARE MODE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What does not agree; `expected` and `found` are for people. `repairable`: by `repair`, of `team_id`."""

    kind: Literal["hold", "entries", "counter", "usage", "task"]
    subject: str
    expected: str
    found: str
    team_id: UUID | None = None
    repairable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How many of each were compared."""

    holds: int
    entries: int
    counters: int
    buckets: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The result: ok when there is no difference."""

    checked: Checked
    differences: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        return not self.differences


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """How many rows a repair changed, made or removed."""

    counters: int = 0
    buckets: int = 0

    def plus(self, other: Repaired) -> Repaired:
        return Repaired(counters=self.counters + other.counters, buckets=self.buckets + other.buckets)


async def verify(
    connection: AsyncConnection, *, in_turn: bool = False, statement_seconds: int = STATEMENT_SECONDS
) -> Proof:
    """Compares everything in one read-only snapshot; `connection` must be at the beginning of a transaction.

    One runs at a time, over all processes, until its transaction ends: GatewayError 409 while another does, unless this
    one is to wait for its turn, which is before that of those who do not wait. The snapshot is of after the wait.
    """
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    await allow(connection, statement_seconds)
    await connection.execute(text("SET LOCAL jit = off"))  # compiling takes longer than these queries
    await _take_turn(connection, statement_seconds if in_turn else None)
    await connection.execute(_STAY)
    await connection.execute(text("SET TRANSACTION READ ONLY"))
    counts = (await connection.execute(queries.COUNTS)).one()
    suspects = {
        "disputed": (await connection.execute(queries.DISPUTED)).scalars().all(),
        "orphaned": (await connection.execute(queries.ORPHANED)).scalars().all(),
    }
    found: list[Difference] = []
    pruned = await pruned_until(connection) is not None
    for query, described in (
        (queries.HOLDS, _hold),
        (queries.ORPHANS, _orphan),
        (queries.COUNTERS, _counter),
        (queries.USAGE, _bucket),
        *([(queries.PRUNED_USAGE, _pruned)] if pruned else []),
        (rollup_queries.DIFFERING, _summed),
        (queries.TASKS, _task),
    ):
        values = {name: value for name, value in suspects.items() if name in query.compile().params}
        rows = (await connection.execute(query, values | {"most": MOST_DIFFERENCES + 1})).all()
        found += _limited([described(row) for row in rows])
    return Proof(checked=Checked(**counts._mapping), differences=tuple(found))


async def _take_turn(connection: AsyncConnection, patience: int | None) -> None:
    """Waits for `patience` seconds, or not at all."""
    if patience is not None:
        await connection.execute(text(f"SET LOCAL lock_timeout = '{patience}s'"))
        await connection.execute(_IN_TURN)
        return
    try:
        await connection.execute(_ALONE)
    except exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise errors.conflict_for_now("A proof is running; ask again.", "proof_running") from None


async def repair(connection: AsyncConnection, actor: str, team_id: UUID) -> Repaired:
    """Makes the team's counters and usage what its entries and holds say; answers how many rows were wrong.

    Holds and entries stay as they are, but for a counter that is gone: entries empty it, open holds come off it. No
    call of the team is placed or ended meanwhile.
    """
    await allow(connection, STATEMENT_SECONDS)
    await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
    await connection.execute(text("SET LOCAL jit = off"))
    await counters.lock(connection, team_id)
    team = {"team": team_id}
    moved = (await connection.execute(queries.REPAIR_COUNTERS, team)).rowcount
    moved += (await connection.execute(queries.REPAIR_MISSING, team)).rowcount
    buckets = (await connection.execute(queries.REPAIR_USAGE, team)).scalar_one()
    buckets += await rollups.mark_differing(connection, team_id)
    await counters.open_missing(connection, team_id)
    repaired = Repaired(counters=moved, buckets=buckets)
    if repaired != Repaired():
        await audit.write(
            connection,
            actor=actor,
            action="ledger.repair",
            subject=("team", str(team_id)),
            team_id=team_id,
            detail=asdict(repaired),
        )
    return repaired


def repairable(differences: Sequence[Difference]) -> list[UUID]:
    """The teams with differences that `repair` can mend, in the order of their ids."""
    return sorted({one.team_id for one in differences if one.team_id is not None and one.repairable})


def _limited(found: list[Difference]) -> list[Difference]:
    if len(found) <= MOST_DIFFERENCES:
        return found
    kept = found[:MOST_DIFFERENCES]
    more = f"more than {MOST_DIFFERENCES} differences"
    return [*kept, Difference(kind=kept[0].kind, subject="others", expected="none", found=more)]


def _hold(row: Any) -> Difference:
    return Difference(
        kind="hold",
        subject=str(row.id),
        expected=f"{row.state}: {_called_for(row)}",
        found=row.entered or "no entries",
        team_id=row.team_id,
    )


def _called_for(row: Any) -> str:
    """The entries that the hold's own row calls for."""
    quote, settled = row.quote, row.settled
    entries = [_entry("place", quote, 0)]
    if row.state == "settled":
        entries.append(_entry("settle", -quote, min(settled or 0, quote)))
        if settled is not None and settled > quote:
            entries.append(_entry("overrun", 0, settled - quote))
    if row.state == "released":
        entries.append(_entry("release", -quote, 0))
    if (settled is None) == (row.state == "settled"):
        entries.append("a settled amount" if settled is None else "no settled amount")
    if (row.ended_at is None) == (row.state in ("settled", "released")):
        entries.append("an end" if row.ended_at is None else "no end yet")
    return ", ".join([*entries, "each naming its team, key and counters"])


def _entry(kind: str, held: int, settled: int) -> str:
    return f"{kind} held {to_text(held)} settled {to_text(settled)}"


def _orphan(row: Any) -> Difference:
    return Difference(
        kind="entries", subject=str(row.id), expected="a hold", found=row.entered, team_id=row.team_id
    )


def _counter(row: Any) -> Difference:
    subject = str(row.counter)
    if row.period is not None:
        owner = row.slug if row.key_id is None else f"key {row.key_id} of {row.slug}"
        subject += f" ({owner}, {row.period} from {row.starts_at:%Y-%m-%dT%H:%MZ})"
    expected = _standing(row.entered_settled, row.entered_held)
    found = "no counter" if row.missing else _standing(row.settled, row.held)
    if not row.as_open:
        found += f", open holds of {to_text(row.open_held)}"
    if row.settled < 0 or row.held < 0:
        expected += ", never below 0"
    return Difference(
        kind="counter",
        subject=subject,
        expected=expected,
        found=found,
        team_id=row.of_team,
        repairable=True,
    )


def _standing(settled: int, held: int) -> str:
    return f"settled {to_text(settled)}, held {to_text(held)}"


def _bucket(row: Any) -> Difference:
    subject = (
        f"{row.starts_at:%Y-%m-%dT%H:%MZ} {row.slug or row.team_id} {row.key_id} {row.model} {row.operation}"
    )
    return _of_usage(row, subject)


def _summed(row: Any) -> Difference:
    return _of_usage(
        row, f"{row.utc_day}, the day's sum, {row.slug or row.team_id} {row.model} {row.operation}"
    )


def _pruned(row: Any) -> Difference:
    """Not repairable: its holds are gone, and what they left says nothing of keys and quarters of an hour."""
    subject = f"{row.utc_day}, of a pruned month, {row.slug or row.team_id} {row.model} {row.operation}"
    return _of_usage(row, subject, repairable=False)


def _of_usage(row: Any, subject: str, *, repairable: bool = True) -> Difference:
    return Difference(
        kind="usage",
        subject=subject,
        expected=_usage(row, "e_"),
        found=_usage(row, ""),
        team_id=row.team_id,
        repairable=repairable,
    )


def _usage(row: Any, prefix: str) -> str:
    def value(name: str) -> int:
        return int(getattr(row, prefix + name))

    return (
        f"requests {value('requests')}, failed {value('failed')}, shadow_refused {value('shadow_refused')}, "
        f"credits {to_text(value('credits'))}, estimated {to_text(value('estimated'))}"
    )


def _task(row: Any) -> Difference:
    if row.settled is None:
        return Difference(
            kind="task",
            subject=row.id,
            expected="an ended hold",
            found=f"hold {row.hold_id} is {row.state}",
            team_id=row.team_id,
        )
    return Difference(
        kind="task",
        subject=row.id,
        expected=f"credits_cost {to_text(row.settled)}, as its hold {row.hold_id}",
        found=f"credits_cost {to_text(row.credits_cost)}",
        team_id=row.team_id,
    )
