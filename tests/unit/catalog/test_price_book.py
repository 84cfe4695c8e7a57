"""The price book: names and aliases, and quotes as the contract's table says."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.price_book import ModelPrice, Price, PriceBook, quote
from gateway.catalog.price_file import load
from gateway.catalog.price_parser import parse
from gateway.credits.amount import MICRO

SHIPPED = Path(__file__).parents[3] / "config" / "models.toml"
OK = '[models.m]\ncategory = "image"\nper = "image"\ncredits = 1\n'


@pytest.fixture(scope="module")
def shipped() -> PriceBook:
    return load(SHIPPED)


def book(text: str) -> PriceBook:
    return parse(text, Path("models.toml"))


def priced(model: ModelPrice, **asked: object) -> tuple[float, float]:
    """(charged, held) in credits of one call, by default one plain image."""
    plain: dict[str, object] = {
        "operation": "images.generations",
        "images": 1,
        "sizes": (None,),
        "quality": None,
        "seconds": None,
        "input_images": 0,
    }
    found = quote(model, **(plain | asked))  # type: ignore[arg-type]
    return found.credits / MICRO, found.hold / MICRO


@pytest.mark.parametrize(
    ("model", "asked", "charged", "held"),
    [
        ("gemini-2.5-flash-image", {}, 2, 2),
        ("nano-banana", {"images": 3}, 6, 6),
        ("nano-banana-2", {}, 4, 4),
        ("nano-banana-2", {"sizes": ("512",)}, 4, 4),
        ("nano-banana-2", {"sizes": ("2k",)}, 6, 6),
        ("nano-banana-2", {"sizes": ("4k",)}, 8, 8),
        ("nano-banana-2", {"sizes": ("512", "2k")}, 6, 6),
        ("nano-banana-2", {"sizes": ()}, 4, 4),
        ("nano-banana-pro", {"sizes": ("4k",), "images": 10}, 160, 160),
        ("gpt-image-1.5", {}, 1, 4),
        ("gpt-image-1.5", {"quality": " HIGH "}, 1, 8),
        ("gpt-image-1.5", {"quality": "low"}, 1, 4),
        ("veo", {}, 8, 16),
        ("veo", {"seconds": Decimal(60)}, 60, 120),
        ("kling", {"seconds": Decimal("2.5")}, 5.6, 11.2),
        ("wan", {"seconds": Decimal(1)}, 2, 4),
    ],
)
def test_the_shipped_book_prices_what_pixapi_publishes(
    shipped: PriceBook, model: str, asked: dict[str, object], charged: float, held: float
) -> None:
    found = shipped.model(model)
    assert found is not None
    assert priced(found, **asked) == (charged, held)


def test_names_are_resolved(shipped: PriceBook) -> None:
    assert shipped.canonical("nano-banana-pro") == "gemini-3-pro-image-preview"
    assert shipped.canonical("anything") == "anything"
    assert shipped.model("nano-banana") is shipped.model("gemini-2.5-flash-image")
    assert shipped.model("anything") is None
    assert shipped.model("NANO-BANANA") is None


def test_the_first_matching_condition_wins_with_every_property() -> None:
    found = book(
        OK
        + """when = [
          { size = ["2k", "4k"], quality = ["High"], operation = ["images.edits"], credits = 9 },
          { size = ["4k"], credits = 5, hold = 7 },
          { quality = ["high"], hold = 3 },
        ]\nper_input_image = 0.5\n""",
    ).model("m")
    assert found is not None
    edit = {"operation": "images.edits"}
    assert priced(found, sizes=("2k",), quality="high", **edit) == (9, 9)
    assert priced(found, sizes=("2k",), quality="high") == (1, 3)
    assert priced(found, sizes=("4k",), quality="low", **edit) == (5, 7)
    assert priced(found, sizes=(None,)) == (1, 1)
    assert priced(found, images=2, input_images=3) == (5, 5)


def test_a_condition_s_credits_are_held_and_the_base_hold_is_kept() -> None:
    found = book(OK + 'hold = 4\nwhen = [{ size = ["4k"], credits = 6 }, { size = ["2k"] }]\n').model("m")
    assert found is not None
    assert priced(found, sizes=("4k",)) == (6, 6)
    assert priced(found, sizes=("2k",)) == (1, 4)


@given(
    st.integers(0, 10**9),
    st.integers(1, 10),
    st.decimals("0.000001", 60, places=6),
)
def test_a_video_s_price_is_exact_and_half_up(micro: int, images: int, seconds: Decimal) -> None:
    model = ModelPrice(
        id="v",
        category="video",
        per="second",
        price=Price(micro, micro),
        when=(),
        aliases=(),
        per_input_image=0,
        max_n=10,
        default_seconds=Decimal(5),
        max_seconds=Decimal(60),
    )
    found = quote(
        model, operation="x", images=images, sizes=(), quality=None, seconds=seconds, input_images=0
    )
    scaled = micro * images * int(seconds * MICRO)
    assert found == Price(*[(scaled + MICRO // 2) // MICRO] * 2)
