from __future__ import annotations

from decimal import Decimal

import pytest
import typer

from gateway.cli.options import changes, fields, names, number, one_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, None),
        ("5", 5),
        ("-5", -5),
        ("1.5", Decimal("1.5")),
        ("123456789012.123456", Decimal("123456789012.123456")),
        ("1e3", Decimal("1e3")),
        ("none", "none"),
        ("lots", "lots"),
        ("--5", "--5"),
        ("9" * 5000, "9" * 5000),
        ("", ""),
    ],
)
def test_numbers_stay_exact_and_other_text_stays_text(text: str | None, value: object) -> None:
    read = number(text)
    assert read == value
    assert type(read) is type(value)


def test_names_are_split_at_commas() -> None:
    assert names("a, b,c") == ["a", "b", "c"]
    assert names("none") == "none"
    assert names(None) is None


def test_only_what_was_given_is_sent() -> None:
    assert fields(a=1, b=None, c=False) == {"a": 1, "c": False}
    assert changes({"x": "none", "y": None, "z": 5}, name=None, slug="s") == {"x": None, "z": 5, "slug": "s"}


def test_a_thing_is_named_once() -> None:
    assert one_of("a", None, "team") == one_of(None, "a", "team") == "a"
    for argument, flag in ((None, None), ("a", "b")):
        with pytest.raises(typer.BadParameter):
            one_of(argument, flag, "team")
