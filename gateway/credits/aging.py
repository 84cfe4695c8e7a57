"""Holds past their time: nobody concludes them any more, so time does.

A hold of a call that cannot be running any more becomes unknown: its process ended between placing and concluding. So
does the hold of a task that has not ended within `task_max_age`. A hold that stays unknown settles at its quote.
All of it is compare-and-set: should the true conclusion come all the same, it counts for as long as the hold is open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, func, select

from gateway.credits.ledger import conclude_all
from gateway.credits.terms import Conclusion
from gateway.db.engine import Database
from gateway.db.tables import holds, tasks, teams
from gateway.telemetry import Metrics

log = logging.getLogger("gateway.aging")

BATCH, MOST_BATCHES = 64, 100
GRACE = 60.0  # beyond the longest call: the ledger's own repeats, a slow disk, clocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """Seconds after which a hold is past its time: without a task, with one that does not end, and unknown."""

    longest_call: float
    task_max_age: float
    settle_unknown_after: float


@dataclass(frozen=True, slots=True)
class Aged:
    """How many holds one pass made unknown, and how many it settled."""

    unknown: int
    settled: int


class Aging:
    """Runs in every process; what one has locked the others pass over."""

    def __init__(self, database: Database, ages: Ages, metrics: Metrics | None = None) -> None:
        self._database = database
        self._ages = ages
        self._metrics = metrics or Metrics()

    async def once(self) -> Aged:
        """Every hold that is past its time now. Raises GatewayError 503 when Postgres cannot be asked."""
        abandoned = await self._all(_abandoned(self._ages.longest_call), _process_ended)
        endless = await self._all(_endless(self._ages.task_max_age), _task_too_old)
        settled = await self._all(_long_unknown(self._ages.settle_unknown_after), settled_at_quote)
        return Aged(abandoned + endless, settled)

    async def open_holds(self) -> dict[str, int]:
        """How many holds of all processes have not ended, by state: held and unknown."""
        async with self._database.autocommit() as connection:
            rows = (await connection.execute(_OPEN)).all()
        return {"held": 0, "unknown": 0} | {row.state: row.number for row in rows}

    async def _all(self, query: Select[Any], concluded: Callable[[int, str | None], Conclusion]) -> int:
        """Concludes what the query finds, batch by batch; how many changed."""
        changed = 0
        for _ in range(MOST_BATCHES):
            async with self._database.transaction() as connection:
                rows = (await connection.execute(query)).all()
                if not rows:
                    break
                ends = [(row.id, concluded(row.quote, row.reason)) for row in rows]
                ended = await conclude_all(connection, ends)
            for row, (hold_id, conclusion), end in zip(rows, ends, ended, strict=True):
                if end.changed:
                    changed += 1
                    self._metrics.hold_ended(conclusion.state, conclusion.settled, row.slug, row.model)
                log.warning(
                    "hold is past its time", extra={"hold": str(hold_id), "reason": conclusion.reason}
                )
        return changed


def longest_call(timeout: float, pool_wait: float, sends: int) -> float:
    """Seconds after which a call that was placed cannot be under way any more, in whichever process."""
    return sends * (timeout + pool_wait) + GRACE


def settled_at_quote(quote: int, reason: str | None) -> Conclusion:
    """How a hold ends that stayed unknown for too long; why it was unknown is kept."""
    word = "unknown_too_long" if reason is None else f"unknown_too_long: {reason}"
    return Conclusion(state="settled", settled=quote, estimated=True, flags=("aged",), reason=word)


def _process_ended(_: int, __: str | None) -> Conclusion:
    return Conclusion(state="unknown", reason="process_ended")


def _task_too_old(_: int, __: str | None) -> Conclusion:
    return Conclusion(state="unknown", reason="task_too_old")


def _past(column: Any, seconds: float) -> Any:
    return column < func.now() - timedelta(seconds=seconds)


def _batch(query: Select[Any]) -> Select[Any]:
    return query.order_by(holds.c.id).limit(BATCH).with_for_update(of=holds, skip_locked=True, key_share=True)


_HOLD = select(holds.c.id, holds.c.quote, holds.c.reason, holds.c.model, teams.c.slug).join_from(
    holds, teams, teams.c.id == holds.c.team_id
)
_OPEN = (
    select(holds.c.state, func.count().label("number"))
    .where(holds.c.state.in_(("held", "unknown")))
    .group_by(holds.c.state)
)


def _abandoned(seconds: float) -> Select[Any]:
    own_task = select(tasks.c.id).where(tasks.c.id == holds.c.task_id, tasks.c.hold_id == holds.c.id)
    return _batch(_HOLD.where(holds.c.state == "held", _past(holds.c.placed_at, seconds), ~own_task.exists()))


def _endless(seconds: float) -> Select[Any]:
    return _batch(
        _HOLD.join(tasks, tasks.c.hold_id == holds.c.id).where(
            holds.c.state == "held", tasks.c.ended_at.is_(None), _past(tasks.c.created_at, seconds)
        )
    )


def _long_unknown(seconds: float) -> Select[Any]:
    since = func.coalesce(holds.c.unknown_at, holds.c.placed_at)
    return _batch(_HOLD.where(holds.c.state == "unknown", _past(since, seconds)))
