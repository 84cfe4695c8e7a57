from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from gateway.credits.usage import (
    Range,
    Row,
    Statement,
    Sums,
    bound,
    bound_text,
    csv_text,
    dimensions,
    document,
    range_of,
)
from gateway.errors import GatewayError

NOW = datetime(2026, 3, 31, 23, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-03-01", date(2026, 3, 1)),
        ("2026-03-01T00:00:00Z", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T05:45+05:45", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T10:15:00-00:30", datetime(2026, 3, 1, 10, 45, tzinfo=UTC)),
    ],
)
def test_bounds_are_dates_or_quarters_of_an_hour(text: str, value: object) -> None:
    assert bound(text) == value
    assert type(bound(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("2026-03-01T00:00:01Z", "quarter"),
        ("2026-03-01T00:10:00Z", "quarter"),
        ("2026-03-01T00:00:00.5Z", "quarter"),
        ("2026-03-01T00:00:00", "zone"),
        ("2026-03-01T00:00:00 02:00", "zone"),
        ("2026-02-30", "date"),
        ("20260301", "date"),
        ("0001-01-01", "date"),
        ("9999-12-31T23:59:00-23:00", "date"),
        ("yesterday", "date"),
        ("", "date"),
    ],
)
def test_what_is_no_bound_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        bound(text)


def test_dimensions_keep_their_order() -> None:
    assert dimensions("model, team") == ("model", "team")
    assert dimensions("day,day") == ("day",)
    for text in ("", "team,", "Team", "cost_center"):
        with pytest.raises(ValueError, match="team, key, model, operation, day"):
            dimensions(text)


def test_the_range_is_this_month_so_far() -> None:
    assert range_of(None, None, NOW) == Range(
        start=datetime(2026, 3, 1, tzinfo=UTC), end=datetime(2026, 3, 31, 23, 15, tzinfo=UTC)
    )
    tokyo = range_of(None, None, NOW, "Asia/Tokyo")
    assert bound_text(tokyo.start) == "2026-03-31T15:00:00Z", "there it is April"
    on_the_quarter = range_of(None, None, NOW.replace(minute=15))
    assert bound_text(on_the_quarter.end) == "2026-03-31T23:30:00Z", "what is spent this instant counts"


def test_a_range_must_not_end_before_it_begins() -> None:
    day = date(2026, 3, 10)
    assert range_of(day, day + timedelta(days=1), NOW).start == day
    for start, end in ((day, day), (day, day - timedelta(days=1)), (NOW, NOW), (date(2027, 1, 1), NOW)):
        with pytest.raises(GatewayError, match="to: must be after from"):
            range_of(start, end, NOW)


def test_statements_are_exact_in_json_and_csv() -> None:
    sums = Sums(requests=3, failed=1, credits=100_000, estimated_credits=0, shadow_refused=2)
    rows = tuple(
        Row(names={"team": team, "team_id": f"id-{team}", "model": "m,1"}, sums=sums) for team in "ab"
    )
    found = Statement(
        range=Range(start=date(2026, 3, 1), end=datetime(2026, 4, 1, tzinfo=UTC)),
        by=("team", "model"),
        rows=rows,
        totals=sums.plus(sums),
    )
    answer = document(found)
    assert (answer["from"], answer["to"]) == ("2026-03-01", "2026-04-01T00:00:00Z")
    assert str(answer["data"][0]["credits"]) == "0.1"
    assert str(answer["totals"]["credits"]) == "0.2"
    assert csv_text(found).splitlines() == [
        "team,team_id,model,requests,failed,credits,estimated_credits,shadow_refused",
        'a,id-a,"m,1",3,1,0.1,0,2',
        'b,id-b,"m,1",3,1,0.1,0,2',
        "total,,,6,2,0.2,0,4",
    ]
