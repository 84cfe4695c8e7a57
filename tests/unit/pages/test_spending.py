"""Ranges of the pages, above all where teams are ahead of UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime

from gateway.credits.usage import Range
from gateway.pages.spending import this_month, wanted

LATE = datetime(2026, 11, 30, 22, 30, tzinfo=UTC)  # it is December at +14
MIDDLE = datetime(2026, 11, 22, 22, 30, tzinfo=UTC)


def test_a_month_ends_with_itself_wherever_teams_are() -> None:
    assert this_month(LATE) == Range(start=date(2026, 11, 1), end=date(2026, 12, 1))
    assert this_month(MIDDLE) == Range(start=date(2026, 11, 1), end=date(2026, 11, 24))
    assert wanted({}, LATE).end == date(2026, 12, 1)


def test_a_day_that_has_begun_somewhere_is_shown_once_it_is_used() -> None:
    which = wanted({"range": "7d"}, MIDDLE)
    assert (which.start, which.end) == (date(2026, 11, 16), date(2026, 11, 24))
    assert which.days({})[-1] == date(2026, 11, 22)
    assert which.days({date(2026, 11, 23): 1})[-1] == date(2026, 11, 23)
