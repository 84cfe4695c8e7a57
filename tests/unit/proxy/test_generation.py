"""What prices a request, read from JSON and from forms; every refusal names the field."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.proxy.generation import Generation, Operation, from_form, from_json, size_class
from gateway.proxy.multipart import Form, FormFile

IMAGES = Operation.IMAGES_GENERATIONS
EDITS = Operation.IMAGES_EDITS
VIDEOS = Operation.ASYNC_VIDEOS_GENERATIONS


def file(name: str) -> FormFile:
    return FormFile(name, "a.png", "image/png", 3)


@pytest.mark.parametrize(
    ("operation", "path", "async_path", "asynchronous", "media"),
    [
        (IMAGES, "/v1/images/generations", "/v1/async/images/generations", False, "image"),
        (EDITS, "/v1/images/edits", "/v1/async/images/edits", False, "image"),
        (Operation("async.images.generations"), "/v1/async/images/generations", None, True, "image"),
        (Operation("async.images.edits"), "/v1/async/images/edits", None, True, "image"),
        (VIDEOS, "/v1/async/videos/generations", None, True, "video"),
    ],
)
def test_operations(
    operation: Operation, path: str, async_path: str | None, asynchronous: bool, media: str
) -> None:
    found = (operation.path, operation.async_path, operation.asynchronous, operation.media)
    assert found == (path, async_path or path, asynchronous, media)


def test_only_the_model_is_needed() -> None:
    plain = Generation("m", 1, (), None, None, 0)
    assert from_json({"model": "m"}, IMAGES) == plain
    assert from_form(Form({"model": "m"}, ()), EDITS) == plain
    nulls = dict.fromkeys(
        ["n", "size", "resolution", "image_size", "quality", "duration", "seconds", "async", "image"]
    )
    assert from_json({"model": "m", **nulls}, IMAGES) == plain
    empty = dict.fromkeys(["n", "size", "resolution", "quality", "duration", "seconds", "async"], "")
    assert from_form(Form({"model": "m", **empty}, ()), EDITS) == plain


def test_everything_is_read() -> None:
    fields = {
        "model": "gemini-3-pro-image-preview", "prompt": "x", "n": 3, "size": "1024x1024", "image_size": "4K",
        "resolution": "1024x1024", "quality": "high", "duration": 4, "seconds": "7.1", "response_format": 5,
    }  # fmt: skip
    found = from_json(fields, VIDEOS)
    assert found == Generation(
        "gemini-3-pro-image-preview", 3, ("1024x1024", "4K"), "high", Decimal("7.1"), 0
    )
    assert found.size == "1024x1024"
    form = Form({"model": "m", "n": "10", "resolution": "2k", "seconds": "4", "duration": "5.50"}, ())
    assert from_form(form, EDITS) == Generation("m", 10, ("2k",), None, Decimal("5.5"), 0)


@pytest.mark.parametrize("value", ["", None, 5, True, ["m"], {}, "x" * 201, "a\nb", "a\x00", "a\x85", "  "])
def test_a_model_is_needed_as_text(value: object) -> None:
    with pytest.raises(GatewayError, match="'model'") as caught:
        from_json({"model": value}, IMAGES)
    assert caught.value.status == 400


def test_the_transition_format_needs_the_model_at_the_top() -> None:
    old = {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"imageConfig": {"imageSize": "4K"}}}
    with pytest.raises(GatewayError, match=r"top level.*'n', 'size' and 'quality'"):
        from_json(old, IMAGES)
    with pytest.raises(GatewayError, match="'duration' and 'size'"):
        from_json(old, VIDEOS)
    assert from_json({"model": "nano-banana", **old}, IMAGES).model == "nano-banana"


@pytest.mark.parametrize("value", [0, -1, 11, 10**17, True, False, 2.0, 1.5, "2", [], {}, ""])
def test_n_is_a_whole_number_from_1_to_10(value: object) -> None:
    with pytest.raises(GatewayError, match="'n' must be a whole number from 1 to 10"):
        from_json({"model": "m", "n": value}, IMAGES)


@pytest.mark.parametrize(
    "value", ["0", "11", "-1", "+2", "2.0", " 2", "2\n", "٣", "x", "0x2", "99999", "1_0"]
)
def test_n_of_a_form_is_decimal_digits(value: str) -> None:
    with pytest.raises(GatewayError, match="'n' must be a whole number from 1 to 10"):
        from_form(Form({"model": "m", "n": value}, ()), EDITS)


@pytest.mark.parametrize("name", ["size", "quality", "resolution", "image_size"])
@pytest.mark.parametrize("value", [1024, True, ["1024x1024"], {"w": 1}, "x" * 201, "a\tb", 0, False])
def test_sizes_and_quality_are_text(name: str, value: object) -> None:
    with pytest.raises(GatewayError, match=f"'{name}' must be text") as caught:
        from_json({"model": "m", name: value}, IMAGES)
    assert caught.value.status == 400


@pytest.mark.parametrize("name", ["duration", "seconds"])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [(5, "5"), (7.1, "7.1"), (0.1, "0.1"), ("8", "8"), ("0.5", "0.5"), (3600, "3600"), ("3600.0", "3600")],
)
def test_seconds_are_exact(name: str, value: object, seconds: str) -> None:
    assert from_json({"model": "m", name: value}, VIDEOS).seconds == Decimal(seconds)


@pytest.mark.parametrize("name", ["duration", "seconds"])
@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        0.0,
        3601,
        3600.5,
        1e300,
        1e-9,
        True,
        False,
        [5],
        {},
        "5s",
        " 5",
        "0",
        "-5",
        "1e3",
        "NaN",
        "٥",
        "5.",
        "9" * 99,
    ],
)
def test_other_durations_are_refused(name: str, value: object) -> None:
    with pytest.raises(GatewayError, match=f"'{name}' must be a number of seconds"):
        from_json({"model": "m", "duration": 5, "seconds": 5, name: value}, VIDEOS)


@pytest.mark.parametrize("value", [False, None, 0, "false", "False", "0", ""])
def test_async_may_be_off(value: object) -> None:
    assert from_json({"model": "m", "async": value}, IMAGES).model == "m"


@pytest.mark.parametrize("value", [True, 1, "true", "TRUE", "1", "yes", 2, 0.5, [], {}, [False]])
@pytest.mark.parametrize("operation", list(Operation))
def test_async_names_the_path_to_use(value: object, operation: Operation) -> None:
    with pytest.raises(GatewayError, match="'async'") as caught:
        from_json({"model": "m", "async": value}, operation)
    assert caught.value.message.endswith(f"to {operation.async_path}.")
    with pytest.raises(GatewayError, match=operation.async_path):
        from_form(Form({"model": "m", "async": "true"}, ()), operation)


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"image": "https://e/1"}, 1),
        ({"image": ["https://e/1", "https://e/2"]}, 2),
        ({"images": [{"url": "https://e/1"}, {"url": "https://e/2"}, "x"]}, 3),
        ({"input_image": "https://e/1", "image_urls": ["https://e/2"], "image_url": {"url": "x"}}, 3),
        ({"image": [], "images": None, "input_image": "", "mask": "https://e/m"}, 0),
    ],
)
def test_input_images_of_json(fields: dict[str, Any], count: int) -> None:
    assert from_json({"model": "m", **fields}, EDITS).input_images == count


def test_input_images_of_a_form_are_its_files_without_masks() -> None:
    files = (file("image"), file("image[]"), file("image[1]"), file("mask"), file("mask[]"), file("other"))
    assert from_form(Form({"model": "m"}, files), EDITS).input_images == 4


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1x1", "512"), ("512x512", "512"), ("512", "512"), ("512px", "512"), ("0.5K", "512"),
        ("513x1", "1k"), ("1024x1024", "1k"), ("1024X1536", "1k"), ("1536x1024", "1k"), ("1k", "1k"),
        ("1280×720", "1k"),
        ("1537x10", "2k"), ("2K", "2k"), (" 2k ", "2k"), ("1920 x 1080", "2k"), ("720*2560", "2k"), ("2048", "2k"),
        ("2561x1", "4k"), ("4k", "4k"), ("4K", "4k"), ("4096x4096", "4k"), ("8k", "4k"), ("999999x1", "4k"),
        ("auto", None), ("16:9", None), ("", None), ("large", None), ("0x0", None), ("0k", None), ("k", None),
        ("landscape_4_3", None), ("1080p", "2k"), ("720p", "1k"), ("2160p", "4k"),
        # what another reader may take for a large size is never priced as a small one
        ("0004096x0004096", "4k"), ("99999999x1", "4k"), ("4096  x  4096", "4k"), ("4096\u00a0x\u00a04096", "4k"),
        ("\uff14\uff10\uff19\uff16x4096", "4k"), ("+4096x4096", "4k"), ("4096.0x4096", "4k"), ("100k", "4k"),
        ("1024x", "4k"), ("x1024", "4k"), ("-1x5", "4k"), ("1024x1024x1024", "4k"), ("1,024x1,024", "4k"),
        ("\u0661\u0660\u0662\u0664x1", "1k"),
    ],
)  # fmt: skip
def test_size_classes(text: str, found: str | None) -> None:
    assert size_class(text) == found


@given(st.text(max_size=20))
def test_any_text_has_a_size_class_or_none(text: str) -> None:
    assert size_class(text) in ("512", "1k", "2k", "4k", None)


ANYTHING: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers())
    | st.just({})
)
NAMES = ["model", "n", "size", "quality", "resolution", "image_size", "duration", "seconds", "async", "image"]


def outcome(fields: dict[str, Any], operation: Operation) -> Generation | GatewayError:
    try:
        return from_json(fields, operation)
    except GatewayError as error:
        return error


@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING), st.sampled_from(Operation))
def test_any_fields_are_priced_or_a_400(fields: dict[str, Any], operation: Operation) -> None:
    found = outcome(fields, operation)
    if isinstance(found, GatewayError):
        assert found.status == 400
        assert any(f"'{name}'" in found.message for name in NAMES)
        return
    assert found.model
    assert 1 <= found.images <= 10
    assert found.seconds is None or 0 < found.seconds <= 3600
