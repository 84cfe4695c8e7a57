"""Calendar periods in a team's zone, as Postgres computes them, against zoneinfo."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

ZONES = [
    "UTC",
    "Asia/Shanghai",
    "America/New_York",
    "Europe/London",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Africa/Cairo",  # clocks change at midnight: one day a year begins at 01:00
    "America/Sao_Paulo",  # the same, until 2018
    "Pacific/Apia",  # had no 30 December 2011
    "Atlantic/Azores",  # midnight comes twice in October
    "America/Havana",  # and in November
    "Asia/Kolkata",
    "Pacific/Chatham",
]
KINDS = ["day", "week", "month"]
Bounds = tuple[datetime, datetime | None]
ANY_CONNECTION = settings(
    derandomize=True,
    deadline=None,
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def sql(module_database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    url = make_url(module_database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        yield connection


def asked(sql: psycopg.Connection[tuple[object, ...]], kind: str, zone: str, at: datetime) -> Bounds:
    row = sql.execute("SELECT * FROM gateway_period(%s, %s, %s)", (kind, zone, at)).fetchone()
    assert row is not None
    starts_at, ends_at = row
    assert isinstance(starts_at, datetime)
    assert ends_at is None or isinstance(ends_at, datetime)
    return starts_at, ends_at


def first_instant(day: date, zone: ZoneInfo) -> datetime:
    """When a local date begins: the first instant at which the wall shows it or a later one."""
    low = datetime.combine(day, time(), UTC) - timedelta(hours=30)
    minutes = range(0, 60 * 60, 15)
    return next(
        at for at in (low + timedelta(minutes=m) for m in minutes) if at.astimezone(zone).date() >= day
    )


def expected(kind: str, zone: str, at: datetime) -> Bounds:
    where = ZoneInfo(zone)
    today = at.astimezone(where).date()
    if kind == "day":
        first, following = today, today + timedelta(days=1)
    elif kind == "week":
        first = today - timedelta(days=today.weekday())
        following = first + timedelta(days=7)
    else:
        first = today.replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1)
    return first_instant(first, where), first_instant(following, where)


@given(
    kind=st.sampled_from(KINDS),
    zone=st.sampled_from(ZONES),
    at=st.integers(1_104_537_600, 2_082_758_400).map(lambda second: datetime.fromtimestamp(second, UTC)),
)
@example(kind="day", zone="Atlantic/Azores", at=datetime(2026, 10, 25, 0, 30, tzinfo=UTC))
@example(kind="day", zone="Atlantic/Azores", at=datetime(2026, 10, 25, 1, 30, tzinfo=UTC))
@example(kind="day", zone="America/Havana", at=datetime(2026, 11, 1, 4, 30, tzinfo=UTC))
@example(kind="day", zone="Africa/Cairo", at=datetime(2026, 4, 23, 22, 0, tzinfo=UTC))
@example(kind="day", zone="Africa/Cairo", at=datetime(2026, 10, 29, 20, 30, tzinfo=UTC))
@example(kind="day", zone="America/Sao_Paulo", at=datetime(2018, 11, 4, 3, 0, tzinfo=UTC))
@example(kind="week", zone="Pacific/Apia", at=datetime(2011, 12, 30, 10, 0, tzinfo=UTC))
@example(kind="day", zone="Pacific/Apia", at=datetime(2011, 12, 30, 9, 59, 59, tzinfo=UTC))
@ANY_CONNECTION
def test_periods_are_those_of_the_wall_in_the_teams_zone(
    sql: psycopg.Connection[tuple[object, ...]], kind: str, zone: str, at: datetime
) -> None:
    starts_at, ends_at = asked(sql, kind, zone, at)
    assert (starts_at, ends_at) == expected(kind, zone, at)
    assert ends_at is not None
    assert starts_at <= at < ends_at
    assert asked(sql, kind, zone, ends_at)[0] == ends_at  # the next begins where this ends
    assert asked(sql, kind, zone, starts_at)[0] == starts_at
    assert asked(sql, kind, zone, starts_at - timedelta(microseconds=1))[1] == starts_at


@pytest.mark.parametrize("zone", ["Africa/Cairo", "Atlantic/Azores", "America/Sao_Paulo", "America/New_York"])
def test_the_days_of_a_year_tile_it(sql: psycopg.Connection[tuple[object, ...]], zone: str) -> None:
    year = 2018 if zone == "America/Sao_Paulo" else 2026
    at, days = asked(sql, "day", zone, datetime(year, 1, 1, 12, tzinfo=UTC))[0], 0
    lengths = set()
    while at.astimezone(ZoneInfo(zone)).year <= year:
        starts_at, ends_at = asked(sql, "day", zone, at)
        assert (starts_at, ends_at is not None) == (at, True)
        assert ends_at is not None
        lengths.add(ends_at - starts_at)
        at, days = ends_at, days + 1
    assert days == 365
    assert lengths == {timedelta(hours=hours) for hours in (23, 24, 25)}


@pytest.mark.parametrize(
    ("zone", "starts_at", "ends_at"),
    [
        ("UTC", "2026-11-01T00:00+00:00", "2026-12-01T00:00+00:00"),
        ("Asia/Shanghai", "2026-10-31T16:00+00:00", "2026-11-30T16:00+00:00"),
        (
            "America/New_York",
            "2026-11-01T04:00+00:00",
            "2026-12-01T05:00+00:00",
        ),  # the clocks change that day
    ],
)
def test_month_edges(
    sql: psycopg.Connection[tuple[object, ...]], zone: str, starts_at: str, ends_at: str
) -> None:
    first, last = datetime.fromisoformat(starts_at), datetime.fromisoformat(ends_at)
    for at in (first, first + timedelta(days=10), last - timedelta(microseconds=1)):
        assert asked(sql, "month", zone, at) == (first, last)
    assert asked(sql, "month", zone, last)[0] == last
    assert asked(sql, "month", zone, first - timedelta(microseconds=1))[1] == first


def test_a_total_never_ends(sql: psycopg.Connection[tuple[object, ...]]) -> None:
    for zone in ZONES:
        assert asked(sql, "total", zone, datetime(2026, 11, 22, tzinfo=UTC)) == (
            datetime(1970, 1, 1, tzinfo=UTC),
            None,
        )
