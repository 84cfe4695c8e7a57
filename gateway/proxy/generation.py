"""The fields that price a request, read strictly from JSON or a form; everything else passes unread."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from gateway import errors
from gateway.errors import GatewayError
from gateway.proxy.multipart import Form

MAX_IMAGES = 10
MAX_SECONDS = 3600
MAX_TEXT = 200

_SIZE_FIELDS = ("size", "resolution", "image_size")
_SECONDS_FIELDS = ("duration", "seconds")
_IMAGE_FIELDS = ("image", "images", "input_image", "image_url", "image_urls")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_COUNT_TEXT = re.compile(r"[0-9]{1,4}")
_NUMBER_TEXT = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
# Spaces are taken out and full-width characters folded before; what an upstream could read as a number counts as one.
_PIXELS = re.compile(r"[+]?(\d+)(?:\.\d*)?(?:px)?(?:[x×*][+]?(\d+)(?:\.\d*)?(?:px)?)?")
_THOUSANDS = re.compile(r"[+]?(\d+(?:\.\d+)?)k")
_LINES = re.compile(r"(\d+)p")  # 1080p: the shorter side of 16:9
_RATIO = re.compile(r"[a-z_-]*\d+(?:\.\d+)?[:/_]\d+(?:\.\d+)?")


class Operation(Enum):
    """A paid call. The value is its stable name in the price book, the ledger and usage reports.

    `path` is the same here and at Pixapi, `async_path` that of the same call as a task.
    """

    IMAGES_GENERATIONS = "images.generations"
    IMAGES_EDITS = "images.edits"
    ASYNC_IMAGES_GENERATIONS = "async.images.generations"
    ASYNC_IMAGES_EDITS = "async.images.edits"
    ASYNC_VIDEOS_GENERATIONS = "async.videos.generations"

    def __init__(self, name: str) -> None:
        self.asynchronous = name.startswith("async.")  # whether Pixapi answers with a task
        self.path = "/v1/" + name.replace(".", "/")
        self.async_path = self.path if self.asynchronous else "/v1/async/" + name.replace(".", "/")
        self.takes_files = name.endswith("images.edits")  # whether a request may be a form instead of JSON
        self.media: Literal["image", "video"] = "video" if "videos" in name else "image"


class Generation(NamedTuple):
    """What a request asks for, as far as it prices it.

    `images` is n (1 when not given). `sizes` holds every size it names, so that pricing can take the dearest.
    `seconds` is None when not given, else the larger of duration and seconds. `input_images` counts
    reference images, without masks.
    """

    model: str
    images: int
    sizes: tuple[str, ...]
    quality: str | None
    seconds: Decimal | None
    input_images: int

    @property
    def size(self) -> str | None:
        """The size, when one is named; of several, the first of size, resolution, image_size."""
        return self.sizes[0] if self.sizes else None


def from_json(fields: Mapping[str, Any], operation: Operation) -> Generation:
    """Read a JSON body; `errors.bad_request` names the field that is missing or wrong, and what is expected."""
    count = fields.get("n")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        raise _bad_count()
    images = 0
    for name in _IMAGE_FIELDS:
        if name in fields:
            images += _listed(fields[name])
    return _generation(fields, operation, count, images)


def from_form(form: Form, operation: Operation) -> Generation:
    """Read a form; same rules, with n as decimal digits."""
    text = form.fields.get("n") or None
    if text is not None and _COUNT_TEXT.fullmatch(text) is None:
        raise _bad_count()
    count = None if text is None else int(text)
    pictures = sum(file.field.partition("[")[0] != "mask" for file in form.files)
    return _generation(form.fields, operation, count, pictures)


@lru_cache(maxsize=1024)
def size_class(text: str) -> Literal["512", "1k", "2k", "4k"] | None:
    """The size class of `1024x1536`, `2K`, `512`, `1080p`: by the longer side in pixels; None for auto, ratios, words.

    A spelling with a number in it that is none of these counts as the largest: a hold must not be too small.
    """
    word = "".join(unicodedata.normalize("NFKC", text).lower().split())
    if not any(char.isdigit() for char in word) or _RATIO.fullmatch(word):
        return None
    side = _longer_side(word)
    if side is None:
        return "4k"
    if side == 0:
        return None
    if side <= 512:
        return "512"
    if side <= 1536:
        return "1k"
    return "2k" if side <= 2560 else "4k"


def _longer_side(word: str) -> int | None:
    """Pixels, None when the word cannot be read."""
    if (pixels := _PIXELS.fullmatch(word)) is not None:
        return max(int(number) for number in pixels.groups() if number is not None)
    if (thousands := _THOUSANDS.fullmatch(word)) is not None:
        return int(Decimal(thousands[1]) * 1024)
    if (lines := _LINES.fullmatch(word)) is not None:
        return int(lines[1]) * 16 // 9
    return None


def _generation(
    fields: Mapping[str, Any], operation: Operation, count: int | None, input_images: int
) -> Generation:
    if "async" in fields:
        _refuse_async(fields["async"], operation)
    model = _text(fields, "model")
    if model is None:
        raise _no_model(operation)
    if count is not None and not 1 <= count <= MAX_IMAGES:
        raise _bad_count()
    sizes: dict[str, None] = {}  # each once, in order
    for name in _SIZE_FIELDS:
        if name in fields and (size := _text(fields, name)) is not None:
            sizes[size] = None
    longest: Decimal | None = None
    for name in _SECONDS_FIELDS:
        if name in fields and (seconds := _seconds(fields, name)) is not None:
            longest = seconds if longest is None else max(longest, seconds)
    quality = _text(fields, "quality") if "quality" in fields else None
    return Generation(
        model, 1 if count is None else count, tuple(sizes) if sizes else (), quality, longest, input_images
    )


def _refuse_async(value: object, operation: Operation) -> None:
    if value is None or value is False or (isinstance(value, str) and value.lower() in ("", "false", "0")):
        return
    if isinstance(value, (int, float)) and value == 0:
        return
    raise errors.bad_request(
        f"The field 'async' is not supported any more; remove it and send the request to {operation.async_path}."
    )


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    """A short text; None when missing, null or empty."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > MAX_TEXT or _CONTROL.search(value) or not value.strip():
        raise errors.bad_request(
            f"The field '{name}' must be text of at most {MAX_TEXT} characters without control characters."
        )
    return value


def _seconds(fields: Mapping[str, Any], name: str) -> Decimal | None:
    value = fields.get(name)
    if value is None or value == "":
        return None
    # repr gives the shortest decimal that means this float: what the client wrote, for up to 15 digits.
    text = repr(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if isinstance(text, str) and _NUMBER_TEXT.fullmatch(text) is not None:
        seconds = Decimal(text)
        if 0 < seconds <= MAX_SECONDS:
            return seconds
    raise errors.bad_request(
        f"The field '{name}' must be a number of seconds, more than 0 and at most {MAX_SECONDS}."
    )


def _listed(value: object) -> int:
    """How many images a JSON value names: a list each of its items, anything else one."""
    if value is None or value == "" or value is False:
        return 0
    return len(value) if isinstance(value, list) else 1


def _bad_count() -> GatewayError:
    return errors.bad_request(f"The field 'n' must be a whole number from 1 to {MAX_IMAGES}.")


def _no_model(operation: Operation) -> GatewayError:
    priced = "'duration' and 'size'" if operation.media == "video" else "'n', 'size' and 'quality'"
    return errors.bad_request(
        "The field 'model' is missing: send the model's id as text at the top level of the request "
        f"(and, where they matter, {priced} beside it)."
    )
