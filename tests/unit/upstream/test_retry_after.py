"""Retry-After as numbers, dates and nonsense."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.retry_after import seconds

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("7", 7.0),
        (" 12.5 ", 12.5),
        ("0", 0.0),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 13:00:30 +0100", 30.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("-3", None),
        ("²", None),
        ("١٢", None),
        ("1e3", None),
        ("nan", None),
        ("soon", None),
        ("Sun, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_it_is_read_as_seconds(value: str | None, found: float | None) -> None:
    assert seconds(value, NOW) == found


@given(st.text(max_size=60))
def test_nothing_breaks_it(value: str) -> None:
    found = seconds(value, NOW)
    assert found is None or found >= 0
