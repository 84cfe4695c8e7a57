"""Rests in Postgres, where several processes write them and an admin forgets them: statements that may come late.

None of them takes back what another one knew: a new rest only prolongs, an ended one is forgotten only as the writer
knew it, and what was noted before the key's state last changed (`enable` is such a change) is no news any more. So
the order in which the writes of several calls arrive does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Update, case, func, or_

from gateway.db.tables import upstream_keys
from gateway.pool.health import Health, Use

_ROW = upstream_keys.c


@dataclass(frozen=True, slots=True)
class Change:
    """What an outcome changed about a key: noted at `at`, in the clock of the two healths.

    `ended`: an answer showed that a rest is over; else the key rests longer than before.
    """

    key: UUID
    before: Health
    after: Health
    at: float
    ended: bool

    def statement(self, now: float) -> Update | None:
        """Writes it down; None when there is nothing to write."""
        noted = func.now() - timedelta(seconds=now - self.at)  # in the database's clock
        values = self._forgotten(noted) if self.ended else self._prolonged(noted)
        if not values:
            return None
        update = upstream_keys.update().where(_ROW.id == self.key, _ROW.state_changed_at <= noted)
        return (update.where(*self._as_known(noted)) if self.ended else update).values(**values)

    def _prolonged(self, noted: ColumnElement[Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if self.after.reads_until > self.before.reads_until:
            until = noted + timedelta(seconds=self.after.reads_until - self.at)
            values["reads_rest_until"] = func.greatest(_ROW.reads_rest_until, until)
            values["rest_reason"] = func.coalesce(_ROW.rest_reason, self.after.reason)
        if self.after.paid_until > self.before.paid_until:
            until = noted + timedelta(seconds=self.after.paid_until - self.at)
            longest = or_(_ROW.paid_rests_until.is_(None), _ROW.paid_rests_until < until)
            values["paid_rests_until"] = func.greatest(_ROW.paid_rests_until, until)
            # Reason and count are those of the longest rest.
            values["rest_reason"] = case((longest, self.after.reason), else_=_ROW.rest_reason)
            values["rest_count"] = case((longest, self.after.refusals), else_=_ROW.rest_count)
        return values

    def _forgotten(self, noted: ColumnElement[Any]) -> dict[str, Any]:
        reading = _ROW.reads_rest_until > noted
        return {
            "paid_rests_until": None,
            "reads_rest_until": case((reading, _ROW.reads_rest_until)),
            "rest_reason": case((reading, "throttled")),
            "rest_count": 0,
        }

    def _as_known(self, noted: ColumnElement[Any]) -> tuple[ColumnElement[bool], ...]:
        """The row has the rest that this process knew, and it is over."""
        over = or_(_ROW.paid_rests_until.is_(None), _ROW.paid_rests_until <= noted)
        return _ROW.rest_reason == self.before.reason, _ROW.rest_count == self.before.refusals, over


def left(use: Use) -> ColumnElement[Any]:
    """Seconds a row still rests from this use; NULL when it does not."""
    column = _ROW.paid_rests_until if use is Use.PAID else _ROW.reads_rest_until
    return case((column > func.now(), func.extract("epoch", column - func.now())))
