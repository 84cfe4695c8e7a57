"""When a quota runs out, if spending goes on as in its period."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.credits.overview import QuotaFill

START = datetime(2026, 11, 1, tzinfo=UTC)
QUOTA = QuotaFill(
    id=UUID(int=1),
    team="a",
    key_id=None,
    key_name=None,
    period="month",
    limit=1000,
    settled=500,
    held=100,
    enforce=True,
    starts_at=START,
    ends_at=START + timedelta(days=30),
)
AFTER_TEN_DAYS = START + timedelta(days=10)


def test_the_pace_of_the_period_goes_on() -> None:
    assert QUOTA.runs_out(AFTER_TEN_DAYS) == START + timedelta(days=18)  # 400 left at 50 a day


def test_there_is_no_date_without_a_pace_or_beyond_the_period() -> None:
    assert QUOTA.runs_out(START + timedelta(days=1)) is None, "too early to say"
    assert replace(QUOTA, settled=100).runs_out(AFTER_TEN_DAYS) is None, "it lasts"
    assert replace(QUOTA, settled=900).runs_out(AFTER_TEN_DAYS) is None, "it is full"
    assert replace(QUOTA, settled=0).runs_out(AFTER_TEN_DAYS) is None
    assert (
        replace(QUOTA, ends_at=None, starts_at=datetime(1970, 1, 1, tzinfo=UTC)).runs_out(AFTER_TEN_DAYS)
        is None
    )
    assert replace(QUOTA, limit=0, settled=0, held=0).share == 1
