"""Holds as admins see them: lists, with the sends of each call, and the word that ends an unknown one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.credits.amount import to_text
from gateway.credits.ledger import conclude
from gateway.credits.pruning import pruned_until
from gateway.credits.terms import Conclusion
from gateway.db import audit
from gateway.db.changes import frozen
from gateway.db.paging import Keyset, Page, PageOf
from gateway.db.tables import attempts, holds, teams, upstream_keys
from gateway.ids import lowest_uuid7

HoldState = Literal["held", "settled", "released", "unknown"]
_ORDER = Keyset("holds", holds.c.id)
# The column has the transaction's time, and that is the one that ends the call.
_SEND: list[ColumnElement[Any]] = [
    *(column for column in attempts.c if column.name != "started_at"),
    attempts.c.started_at.label("recorded_at"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedHold:
    """A hold with its team's slug; `quote` and `settled` in micro-credits."""

    id: UUID
    state: HoldState
    team: str
    team_id: UUID
    key_id: str
    model: str
    operation: str
    quote: int
    settled: int | None
    estimated: bool
    flags: tuple[str, ...]
    task_id: str | None
    request_id: str
    placed_at: datetime
    ended_at: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One send of a call; `status` None when nothing came back, `upstream_key` its label.

    `recorded_at` is when the call's sends were written down, after the last of them.
    """

    hold_id: UUID
    number: int
    upstream_key_id: UUID
    upstream_key: str | None
    outcome: str
    status: int | None
    milliseconds: int
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldFilter:
    """Which holds; None does not narrow. Placed from `start`, inclusive, to `end`, exclusive, to the millisecond."""

    state: HoldState | None = None
    team_id: UUID | None = None
    key_id: str | None = None
    model: str | None = None
    request_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """How an unknown hold ends: settled at `credits` micro-credits (None: its quote), or released."""

    outcome: Literal["settle", "release"]
    reason: str
    credits: int | None = None


async def page(connection: AsyncConnection, narrow: HoldFilter, which: PageOf) -> Page[ListedHold]:
    """One page of the holds the filter lets through."""
    query = _query()
    for name in ("state", "team_id", "key_id", "model", "request_id"):
        wanted = getattr(narrow, name)
        if wanted is not None:
            query = query.where(holds.c[name] == wanted)
    # Ids begin with the instant, and are what lists and partitions are ordered by.
    if narrow.start is not None:
        query = query.where(holds.c.id >= lowest_uuid7(narrow.start))
    if narrow.end is not None:
        query = query.where(holds.c.id < lowest_uuid7(narrow.end))
    return await _ORDER.read(connection, query, which, _hold)


async def find(connection: AsyncConnection, hold: str) -> ListedHold:
    """The hold with this id; 404 when there is none."""
    row = (await connection.execute(_query().where(holds.c.id == _id_in(hold)))).one_or_none()
    if row is None:
        until = await pruned_until(connection)
        raise _unknown() if until is None or UUID(hold) >= lowest_uuid7(_midnight(until)) else _pruned(until)
    return _hold(row)


async def of_request(connection: AsyncConnection, request_id: str, limit: int) -> list[ListedHold]:
    """The holds placed under this request id, newest first."""
    query = _query().where(holds.c.request_id == request_id).order_by(holds.c.id.desc()).limit(limit)
    return [_hold(row) for row in await connection.execute(query)]


async def by_ids(connection: AsyncConnection, hold_ids: Collection[UUID]) -> dict[UUID, ListedHold]:
    """Those of these holds that there are."""
    rows = await connection.execute(_query().where(holds.c.id.in_(hold_ids)))
    return {row.id: _hold(row) for row in rows}


async def attempts_of(connection: AsyncConnection, found: Iterable[ListedHold]) -> dict[UUID, list[Attempt]]:
    """The sends of these holds' calls, in their order; holds that were never sent are left out."""
    ids = [hold.id for hold in found]
    query = (
        select(*_SEND, upstream_keys.c.label.label("upstream_key"))
        .join_from(attempts, upstream_keys, upstream_keys.c.id == attempts.c.upstream_key_id, isouter=True)
        .where(attempts.c.hold_id.in_(ids))
        .order_by(attempts.c.hold_id, attempts.c.number)
    )
    sent: dict[UUID, list[Attempt]] = {}
    for row in await connection.execute(query):
        sent.setdefault(row.hold_id, []).append(Attempt(**row._mapping))
    return sent


async def resolve(connection: AsyncConnection, actor: str, hold: str, resolution: Resolution) -> ListedHold:
    """The hold as its resolution leaves it; 404 without one of this id, 409 unless it is unknown.

    Without `credits` it settles at its quote and counts as estimated. The ledger entry names the actor.
    """
    hold_id = _id_in(hold)
    before = await _find(connection, hold_id)
    released = resolution.outcome == "release"
    settled = None if released else before.quote if resolution.credits is None else resolution.credits
    conclusion = Conclusion(
        state="released" if released else "settled",
        settled=settled,
        estimated=not released and resolution.credits is None,
        flags=("overrun",) if settled is not None and settled > before.quote else (),
        reason=resolution.reason,
        actor=actor,
    )
    if before.state != "unknown" or not (await conclude(connection, hold_id, conclusion)).changed:
        raise errors.conflict(
            f"The hold is {before.state}; only an unknown one waits for an admin's word.", "hold_not_unknown"
        )
    detail = {"outcome": resolution.outcome, "reason": resolution.reason, "quote": to_text(before.quote)}
    await audit.write(
        connection,
        actor=actor,
        action="hold.resolve",
        subject=("hold", str(hold_id)),
        team_id=before.team_id,
        detail=detail if settled is None else detail | {"credits": to_text(settled)},
    )
    return await _find(connection, hold_id)


async def _find(connection: AsyncConnection, hold_id: UUID) -> ListedHold:
    """The hold, kept from ending until the transaction does."""
    query = _query().where(holds.c.id == hold_id).with_for_update(key_share=True, of=holds)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise _unknown()
    return _hold(row)


def _id_in(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _unknown() from None


def _unknown() -> errors.GatewayError:
    return errors.not_found("There is no hold with this id.", "hold_not_found")


def _pruned(until: date) -> errors.GatewayError:
    text = (
        f"What was placed before {until} has been pruned; the month's export has this hold, if there was one."
    )
    return errors.not_found(text, "hold_not_found")


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)


def _query() -> Select[Any]:
    columns = [holds.c[field.name] for field in fields(ListedHold) if field.name != "team"]
    return select(*columns, teams.c.slug.label("team")).join(teams, teams.c.id == holds.c.team_id)


def _hold(row: Row[Any]) -> ListedHold:
    return ListedHold(**frozen(dict(row._mapping)))  # type: ignore[arg-type]
