"""How slowly a body may come."""

from __future__ import annotations

import pytest

from gateway.middleware.request_body import trickles


@pytest.mark.parametrize(
    ("size", "seconds", "too_slow"),
    [
        (0, 29.9, False),  # the idle time-out is for these
        (1, 29.9, False),
        (30 * 1024 - 1, 30, True),
        (30 * 1024, 30, False),
        (1024 * 1024, 1024, False),
        (1024 * 1024, 1025, True),
        (60, 60, True),
    ],
)
def test_after_half_a_minute_a_body_keeps_a_rate(size: int, seconds: float, too_slow: bool) -> None:
    assert trickles(size, seconds) is too_slow
