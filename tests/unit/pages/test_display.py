"""Amounts, shares and times as pages write them: exact where they are money."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.credits.amount import from_decimal
from gateway.pages import display
from gateway.pages.language import translations

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0.00"),
        (Decimal("1e3"), "1,000.00"),
        (Decimal("1234567.5"), "1,234,567.50"),
        (Decimal("0.000001"), "0.000001"),
        (Decimal("2.100"), "2.10"),
    ],
)
def test_amounts(value: Decimal | int | None, text: str) -> None:
    assert display.amount(value) == text


@given(st.integers(0, 10**18))
def test_no_micro_credit_is_lost(micro: int) -> None:
    assert from_decimal(Decimal(display.micro(micro).replace(",", ""))) == micro


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.034, "3.4 %"),
        (0.5, "50 %"),
        (0.29, "29 %"),
        (0.57, "57 %"),
        (0.9999, "99 %"),
        (1, "100 %"),
        (1.226, "123 %"),
        (None, "–"),
    ],
)
def test_only_a_whole_share_is_a_hundred(share: float | None, text: str) -> None:
    assert display.percent(share) == text


@pytest.mark.parametrize(
    ("ahead", "english", "chinese"),
    [
        (timedelta(seconds=-3), "now", "刚刚"),
        (timedelta(seconds=-59), "59 s ago", "59 秒前"),
        (timedelta(minutes=-61), "1 h ago", "1 小时前"),
        (timedelta(days=-40), "40 d ago", "40 天前"),
        (timedelta(minutes=5), "in 5 min", "5 分钟后"),
    ],
)
def test_times(ahead: timedelta, english: str, chinese: str) -> None:
    assert display.ago(NOW + ahead, NOW, translations("en").gettext) == english
    assert display.ago(NOW + ahead, NOW, translations("zh").gettext) == chinese
