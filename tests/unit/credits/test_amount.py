"""Credits: exact to the millionth, half-up beyond, never a float."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.credits.amount import (
    LARGEST,
    MICRO,
    NotAnAmountError,
    from_decimal,
    from_text,
    to_decimal,
    to_text,
)

AMOUNTS = st.integers(0, LARGEST)


@given(AMOUNTS)
def test_every_amount_survives_the_way_out_and_back(micro: int) -> None:
    assert Fraction(to_decimal(micro)) == Fraction(micro, MICRO)
    assert from_decimal(to_decimal(micro)) == micro
    assert from_text(to_text(micro)) == micro


@given(AMOUNTS)
def test_texts_are_plain_and_short(micro: int) -> None:
    text = to_text(micro)
    whole, _, decimals = text.partition(".")
    assert whole.isdigit()
    assert whole == "0" or whole[0] != "0"
    assert len(decimals) <= 6
    assert not decimals.endswith("0")
    assert not text.endswith(".")


@given(st.decimals(0, 10**12, allow_nan=False, allow_infinity=False))
def test_rounding_is_half_up_at_the_sixth_place(value: Decimal) -> None:
    exact = Fraction(value) * MICRO
    floor = int(Decimal(exact.numerator // exact.denominator).to_integral_value(ROUND_FLOOR))
    assert from_decimal(value) == floor + (exact - floor >= Fraction(1, 2))


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("0", 0),
        ("-0", 0),
        ("1", MICRO),
        (" 1.5 ", 1_500_000),
        ("0.000001", 1),
        ("0.0000005", 1),
        ("0.0000004999999999999999999999999999999999999999999999", 0),
        ("0.0000014" + "9" * 300, 1),
        ("0.0000015", 2),
        ("2.24", 2_240_000),
        ("1e-3", 1000),
        ("1E+3", 1000 * MICRO),
        ("1e-400", 0),
        ("1000000000000", LARGEST),
        ("123456789012.123456", 123_456_789_012_123_456),
    ],
)
def test_amounts_are_read(text: str, micro: int) -> None:
    assert from_text(text) == micro


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "number"),
        ("x", "number"),
        ("1,5", "number"),
        ("0x10", "number"),
        ("1 2", "number"),
        ("9" * 401, "number"),
        ("NaN", "finite"),
        ("sNaN", "finite"),
        ("Infinity", "finite"),
        ("-Infinity", "finite"),
        ("-1", "negative"),
        ("-0.0000001", "negative"),
        ("1000000000000.000001", "at most"),
        ("1e13", "at most"),
        ("1e999999999", "at most"),
    ],
)
def test_what_is_no_amount_says_why(text: str, why: str) -> None:
    with pytest.raises(NotAnAmountError, match=why):
        from_text(text)


@given(st.text(max_size=30))
def test_any_text_is_an_amount_or_an_error_of_ours(text: str) -> None:
    try:
        found = from_text(text)
    except NotAnAmountError:
        return
    assert 0 <= found <= LARGEST


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "0"), (1, "0.000001"), (1_500_000, "1.5"), (8_000_000, "8"), (LARGEST, "1000000000000")],
)
def test_amounts_are_written(micro: int, text: str) -> None:
    assert to_text(micro) == text
    assert to_decimal(micro) == Decimal(text)
