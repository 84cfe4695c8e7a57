"""The sandbox's price table, exact to the last digit."""

from decimal import Decimal

import pytest

from gateway.sandbox.prices import MODELS, find_model, image_price, pixels, size_class, video_price


@pytest.mark.parametrize(
    ("name", "n", "size", "quality", "credits"),
    [
        ("gemini-2.5-flash-image", 1, None, None, "2"),
        ("nano-banana", 3, "1024x1024", None, "6"),
        ("nano-banana-2", 1, "512x512", None, "4"),
        ("nano-banana-2", 1, "auto", None, "4"),
        ("nano-banana-2", 1, "2K", None, "6"),
        ("nano-banana-2", 2, "3840x2160", None, "16"),
        ("nano-banana-pro", 1, "2048x2048", None, "8"),
        ("gemini-3-pro-image-preview", 1, "4k", None, "16"),
        ("gpt-image-1.5", 1, "1536x1024", None, "1"),
        ("gpt-image-2", 4, None, "low", "4"),
        ("gpt-image-2", 1, None, "HIGH", "4"),
    ],
)
def test_image_prices(name: str, n: int, size: str | None, quality: str | None, credits: str) -> None:  # noqa: A002
    model = find_model(name)
    assert model is not None
    assert str(image_price(model, n, size, quality)) == credits


@pytest.mark.parametrize(
    ("name", "seconds", "credits"),
    [
        ("veo", "8", "8"),
        ("kling", "5", "11.2"),
        ("kling", "3.5", "7.84"),
        ("wan", "10", "20"),
        ("sora-2", "4", "6"),
    ],
)
def test_video_prices_are_per_second_and_exact(name: str, seconds: str, credits: str) -> None:  # noqa: A002
    model = find_model(name)
    assert model is not None
    assert str(video_price(model, Decimal(seconds))) == credits


def test_aliases_are_no_models_of_their_own() -> None:
    listed = [model.id for model in MODELS]
    assert len(listed) == len(set(listed)) == 9
    assert not any(name.startswith("nano-banana") for name in listed)
    assert find_model("nano-banana-7") is None


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("512x512", "512"),
        ("513x100", "1k"),
        ("1536x1024", "1k"),
        ("1024x1537", "2k"),
        ("2560x1440", "2k"),
        ("2561x1", "4k"),
        (" 2K ", "2k"),
        ("auto", None),
        ("16:9", None),
        (None, None),
        ("0x100", None),
        ("x", None),
        ("1024×1024", None),
    ],
)
def test_size_class(size: str | None, expected: str | None) -> None:
    assert size_class(size) == expected


def test_pixels_refuses_absurd_sizes() -> None:
    assert pixels("99999x99999") == (99999, 99999)
    assert pixels("100000x1") is None
    assert pixels("-1x5") is None
