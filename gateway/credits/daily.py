"""What each day has cost, and how much of it the largest teams, models or keys: one read for a chart and its sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    CTE,
    BigInteger,
    Select,
    Subquery,
    Text,
    cast,
    func,
    literal,
    null,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.credits import usage
from gateway.credits.usage import Range, Sums
from gateway.db.tables import teams

Name = Literal["team", "model", "key"]
_COUNTED = ("requests", "failed", "credits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Largest:
    """One of the largest: its name (a team's slug, a key's id), and the micro-credits of each day."""

    name: str
    credits: Mapping[date, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Daily:
    """`days`: what all together did each day; `largest`: those that spent most, the first first."""

    days: Mapping[date, Sums]
    largest: Sequence[Largest]


async def daily(
    connection: AsyncConnection,
    which: Range,
    by: Name,
    most: int,
    *,
    ranked: Range | None = None,
    team_id: UUID | None = None,
) -> Daily:
    """The days of the range, of one team or of all; `ranked` are the days the largest are found in, if not all."""
    if by == "key":
        return await _of_keys(connection, which, most, ranked or which, team_id)
    cells = _cells(which, by, team_id)
    top = _top(cells, ranked or which, most)
    query = union_all(_together(cells), _each(cells, top, by)).order_by("place", "day")
    found = (await connection.execute(query)).all()
    return Daily(
        days={
            row.day: Sums(**{one: getattr(row, one) for one in _COUNTED}) for row in found if not row.place
        },
        largest=_largest([(row.name, row.day, row.credits) for row in found if row.place]),
    )


def _cells(which: Range, by: Name, team_id: UUID | None) -> CTE:
    """A row for each team or model and day; read once for all that is asked of it."""
    source = usage.rows_within(which, [by, "day"], team_id).subquery()
    ident = source.c.team_id if by == "team" else source.c.model
    sums = [cast(func.sum(source.c[name]), BigInteger).label(name) for name in _COUNTED]
    rows = select(ident.label("ident"), source.c.day, *sums).group_by(ident, source.c.day)
    return rows.cte("cells").prefix_with("MATERIALIZED")


def _top(cells: CTE, over: Range, most: int) -> Subquery:
    """Those that spent most in a range, and their places, from 1."""
    spent = func.sum(cells.c.credits).filter(cells.c.day >= over.start, cells.c.day < over.end)
    place = func.row_number().over(order_by=[spent.desc(), cells.c.ident]).label("place")
    ranked = select(cells.c.ident, place).group_by(cells.c.ident).having(spent > 0)
    return ranked.order_by("place").limit(most).subquery()


def _together(cells: CTE) -> Select[Any]:
    """What all did each day, at the place 0."""
    sums = [cast(func.sum(cells.c[one]), BigInteger).label(one) for one in _COUNTED]
    nobody = cast(null(), Text).label("name")
    return select(literal(0).label("place"), nobody, cells.c.day, *sums).group_by(cells.c.day)


def _each(cells: CTE, top: Subquery, by: Name) -> Select[Any]:
    """What each of the largest did each day."""
    name = teams.c.slug if by == "team" else cast(cells.c.ident, Text)
    rows = select(top.c.place, name.label("name"), cells.c.day, *(cells.c[one] for one in _COUNTED))
    rows = rows.select_from(cells.join(top, top.c.ident == cells.c.ident))
    return rows.join(teams, teams.c.id == cells.c.ident) if by == "team" else rows


async def _of_keys(
    connection: AsyncConnection, which: Range, most: int, ranked: Range, team_id: UUID | None
) -> Daily:
    """Keys are not in the sums of days, and too many for a row a key and day: the largest first, then their days."""
    days = await usage.statement(connection, which, ["day"], team_id)
    keys = await usage.statement(connection, ranked, ["key"], team_id)
    largest = sorted(keys.rows, key=lambda row: (-row.sums.credits, row.names["key"]))[:most]
    names = [row.names["key"] for row in largest if row.sums.credits]
    each = await usage.statement(connection, which, ["key", "day"], team_id, only_keys=names)
    found = [(row.names["key"], row.names["day"], row.sums.credits) for row in each.rows]
    return Daily(
        days={row.names["day"]: row.sums for row in days.rows},
        largest=_largest(sorted(found, key=lambda row: names.index(row[0]))),
    )


def _largest(rows: Sequence[tuple[str, date, int]]) -> list[Largest]:
    spent: dict[str, dict[date, int]] = {}
    for name, day, amount in rows:
        spent.setdefault(name, {})[day] = amount
    return [Largest(name=name, credits=found) for name, found in spent.items()]
