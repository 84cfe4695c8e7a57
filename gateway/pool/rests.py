"""The health of keys in Postgres, where all processes write it and an admin forgets it.

What a call says of its key is applied to the row as it is then, under the row's lock and by the same rule that decided
in the process (`health.after`). So the words of several processes add up in whatever order they arrive, each change is
audited once, and what was noted before the key's state last changed (`enable` is such a change) is no news any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db import audit
from gateway.db.tables import NOW, upstream_keys
from gateway.pool.health import (
    FAILING,
    OUT_OF_CREDITS,
    REFUSED,
    Health,
    Look,
    Use,
    Word,
    after,
    looked,
)

ACTOR = "gateway"
CHECKING_SECONDS = 20.0  # beyond a read's time-out
TRIAL_SECONDS = 620.0  # beyond the longest paid call
_ROW = upstream_keys.c


def _epoch(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.extract("epoch", moment)


HEALTH = (
    _epoch(NOW).label("now_at"),
    _epoch(_ROW.paid_rests_until).label("paid_at"),
    _epoch(_ROW.reads_rest_until).label("reads_at"),
    _epoch(_ROW.next_check_at).label("check_at"),
    _epoch(_ROW.trial_until).label("trial_at"),
    _ROW.rest_reason,
    _ROW.rest_count,
)


def health_of(row: Any, now: float | None = None) -> Health:
    """The health in a row with the columns `HEALTH`: in the database's clock (unix seconds), or in one where it is
    `now`."""
    shift = 0.0 if now is None else now - float(row.now_at)
    return Health(
        paid_until=0.0 if row.paid_at is None else float(row.paid_at) + shift,
        reads_until=0.0 if row.reads_at is None else float(row.reads_at) + shift,
        reason=row.rest_reason,
        count=row.rest_count,
        check_at=None if row.check_at is None else float(row.check_at) + shift,
        trial_until=0.0 if row.trial_at is None else float(row.trial_at) + shift,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """A key's row, locked, in the database's clock."""

    id: UUID
    label: str
    state: str
    health: Health
    now: float
    changed_at: float


async def note(connection: AsyncConnection, key: UUID, words: list[Word], now: float) -> bool:
    """Applies the words of one process, `now` in its clock, in the caller's transaction; whether that changed
    anything."""
    row = await _lock(connection, key)
    if row is None:
        return False
    health = row.health
    for word in words:
        at, since = row.now - (now - word.at), row.now - (now - word.since)
        if row.changed_at <= at:
            health = after(health, replace(word, at=at, since=since))
    return await _store(connection, row, health)


async def take_trial(connection: AsyncConnection, key: UUID) -> bool:
    """Whether the caller's may be the one paid call that tries an empty account; one statement."""
    statement = (
        upstream_keys.update()
        .where(
            _ROW.id == key,
            _ROW.rest_reason == OUT_OF_CREDITS,
            _ROW.next_check_at.is_(None),
            or_(_ROW.paid_rests_until.is_(None), _ROW.paid_rests_until <= NOW),
            or_(_ROW.trial_until.is_(None), _ROW.trial_until <= NOW),
        )
        .values(trial_until=func.to_timestamp(_epoch(NOW) + TRIAL_SECONDS))
    )
    return (await connection.execute(statement.returning(_ROW.id))).one_or_none() is not None


@dataclass(frozen=True, slots=True)
class Claim:
    """A check that this process is to make; `since` by the database's clock."""

    key: UUID
    since: float


async def claim_check(connection: AsyncConnection, key: UUID) -> Claim | None:
    """The check of a key when one is due and no other process is making it; one statement."""
    statement = (
        upstream_keys.update()
        .where(
            _ROW.id == key,
            _ROW.removed_at.is_(None),
            _ROW.state != "disabled",
            _ROW.next_check_at <= NOW,
            or_(_ROW.checking_until.is_(None), _ROW.checking_until <= NOW),
        )
        .values(checking_until=func.to_timestamp(_epoch(NOW) + CHECKING_SECONDS))
    )
    row = (await connection.execute(statement.returning(_epoch(NOW).label("now_at")))).one_or_none()
    return None if row is None else Claim(key, float(row.now_at))


async def conclude_check(connection: AsyncConnection, claim: Claim, look: Look) -> bool:
    """Applies what the model list said, in the caller's transaction, unless the key was changed meanwhile."""
    row = await _lock(connection, claim.key)
    if row is None or row.changed_at > claim.since or row.health.check_at is None:
        return False
    await connection.execute(upstream_keys.update().where(_ROW.id == row.id).values(checking_until=None))
    ruling = looked(row.health, look, row.now, off=row.state == "refused")
    # A draining key stays one; it rests instead, from one look to the next.
    state = row.state if row.state == "draining" else "refused" if ruling.off else "active"
    changed = await _store(connection, row, ruling.health, audited=state == row.state)
    if state != row.state:
        await _turn(connection, row, state)
    return changed


async def _lock(connection: AsyncConnection, key: UUID) -> Row | None:
    query = select(
        _ROW.id, _ROW.label, _ROW.state, _epoch(_ROW.state_changed_at).label("changed_at"), *HEALTH
    )
    query = query.where(_ROW.id == key, _ROW.removed_at.is_(None)).with_for_update(key_share=True)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    return Row(row.id, row.label, row.state, health_of(row), float(row.now_at), float(row.changed_at))


async def _store(connection: AsyncConnection, row: Row, health: Health, *, audited: bool = True) -> bool:
    values = _values(row.health, health)
    if not values:
        return False
    await connection.execute(upstream_keys.update().where(_ROW.id == row.id).values(**values))
    if audited and (detail := news(row.health, health, row.now)) is not None:
        action = "upstream-key.rest" if "seconds" in detail else "upstream-key.recover"
        await _record(connection, row, action, detail)
    return True


async def _turn(connection: AsyncConnection, row: Row, state: str) -> None:
    reason = "refused by Pixapi, its model list too" if state == "refused" else None
    values = {"state": state, "state_reason": reason, "state_changed_at": NOW}
    await connection.execute(upstream_keys.update().where(_ROW.id == row.id).values(**values))
    detail: dict[str, Any] = {"state": [row.state, state]}
    detail["reason"] = reason or "accepted by Pixapi's model list"
    await _record(connection, row, f"upstream-key.{'refuse' if state == 'refused' else 'recover'}", detail)


async def _record(connection: AsyncConnection, row: Row, action: str, detail: dict[str, Any]) -> None:
    subject = ("upstream-key", str(row.id))
    await audit.write(
        connection, actor=ACTOR, action=action, subject=subject, detail={"label": row.label, **detail}
    )


def news(before: Health, found: Health, now: float) -> dict[str, Any] | None:
    """What the audit says of a change: a rest that began, with its `seconds`, or a key that is back; None for what is
    neither, such as a rest that lasts a little longer."""
    if found.reason in (REFUSED, OUT_OF_CREDITS, FAILING) and (before.reason, before.count) != (
        found.reason,
        found.count,
    ):
        until = found.reads_until if found.reason == REFUSED else found.paid_until
        what = "both" if found.reason == REFUSED else Use.PAID.value
        return {"reason": found.reason, "use": what, "seconds": round(until - now), "in_a_row": found.count}
    for use in Use:
        if found.rests(use, now) and not before.rests(use, now):
            seconds = round(found.until(use) - now)
            return {"reason": found.reason, "use": use.value, "seconds": seconds}
    checked = before.check_at is not None and found.check_at is None
    if checked or (before.reason == OUT_OF_CREDITS and found.reason != OUT_OF_CREDITS):
        by = "accepted by Pixapi's model list" if checked else "a paid call was answered"
        return {"reason": by, "after": before.reason}
    return None


_COLUMNS = {
    "paid_until": _ROW.paid_rests_until,
    "reads_until": _ROW.reads_rest_until,
    "check_at": _ROW.next_check_at,
    "trial_until": _ROW.trial_until,
}


def _values(before: Health, found: Health) -> dict[str, Any]:
    values: dict[str, Any] = {
        column.name: func.to_timestamp(getattr(found, name)) if getattr(found, name) else None
        for name, column in _COLUMNS.items()
        if getattr(before, name) != getattr(found, name)
    }
    if (before.reason, before.count) != (found.reason, found.count):
        values |= {"rest_reason": found.reason, "rest_count": found.count}
    return values


def _ahead(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((moment > NOW, moment))


# A key's rests as people are shown them: only what is in force. An empty account stays one until a trial succeeds.
SHOWN: dict[str, ColumnElement[Any]] = {
    "paid_rests_until": _ahead(_ROW.paid_rests_until).label("paid_rests_until"),
    "reads_rest_until": _ahead(_ROW.reads_rest_until).label("reads_rest_until"),
    "rest_reason": case(
        (
            or_(
                _ROW.paid_rests_until > NOW,
                _ROW.reads_rest_until > NOW,
                _ROW.next_check_at.is_not(None),
                _ROW.rest_reason == OUT_OF_CREDITS,
            ),
            _ROW.rest_reason,
        )
    ).label("rest_reason"),
}
