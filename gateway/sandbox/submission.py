"""What a paid request asks for, checked field by field as Pixapi would, with its price."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from gateway.sandbox.errors import SandboxError, invalid, model_not_found
from gateway.sandbox.faults import Faults
from gateway.sandbox.intake import Intake
from gateway.sandbox.prices import Model, find_model, image_price, pixels, size_class, video_price
from gateway.sandbox.world import Account

Operation = Literal["generations", "edits", "videos"]

_MAX_N = 10
_MAX_PROMPT = 32_000
_MAX_SECONDS = 60
_SIZE_FIELDS = ("size", "resolution", "image_size")
_QUALITIES = ("low", "medium", "high", "auto", "standard", "hd")
_IMAGE_LIMIT = 256
_VIDEO_LIMIT = 160


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked order: `files` are the names of its results under /files, `price` in credits."""

    model: Model
    model_name: str
    files: tuple[str, ...]
    price: Decimal
    b64: bool


def check(operation: Operation, intake: Intake, account: Account, faults: Faults) -> Submission:
    """Check every field and price the order. Raises SandboxError (400, 404)."""
    fields = intake.fields
    name = _text(fields, "model", required=True)
    model = find_model(name)
    if model is None or not account.allows(model.id):
        raise model_not_found(name)
    if (operation == "videos") != (model.category == "video"):
        raise invalid(f"Model '{name}' does not support this endpoint.")
    prompt = _text(fields, "prompt", required=True)
    if len(prompt) > _MAX_PROMPT:
        raise invalid(f"prompt must not be longer than {_MAX_PROMPT} characters.")
    if operation == "videos":
        return _video(model, name, fields)
    if operation == "edits" and not intake.files and not _image_urls(fields):
        raise invalid("image is required.")
    return _image(model, name, intake, faults)


def _image(model: Model, name: str, intake: Intake, faults: Faults) -> Submission:
    fields = intake.fields
    asked = _count(fields.get("n"), intake.is_form)
    sizes = _sizes(fields)
    quality = _text(fields, "quality").lower()
    if quality and quality not in _QUALITIES:
        raise invalid(f"quality must be one of {', '.join(_QUALITIES)}.")
    answer_form = _text(fields, "response_format") or "url"
    if answer_form not in ("url", "b64_json"):
        raise invalid("response_format must be url or b64_json.")
    count = asked
    if "fewer_images" in faults:
        count = min(asked, int(faults.number("fewer_images", asked - 1)))
    if "data_empty" in faults:
        count = 0
    price = max(image_price(model, count, size, quality) for size in (*sizes, None))
    width, height = frame(sizes, _IMAGE_LIMIT, (1024, 1024))
    seed = _seed(name, fields)
    files = tuple(f"{seed}{index:02d}-{width}x{height}.png" for index in range(count))
    return Submission(model, name, files, price, answer_form == "b64_json")


def _video(model: Model, name: str, fields: Mapping[str, Any]) -> Submission:
    lengths = [_seconds(fields[key], key) for key in ("duration", "seconds") if fields.get(key) is not None]
    seconds = max(lengths, default=Decimal(model.seconds or 0))
    for key in ("input_image", "image"):
        _text(fields, key)
    width, height = frame(_sizes(fields), _VIDEO_LIMIT, (1280, 720))
    file = f"{_seed(name, fields)}00-{width}x{height}-{max(1, round(seconds))}.mp4"
    return Submission(model, name, (file,), video_price(model, seconds), b64=False)


def refuse_async_switch(query: str | None, fields: Mapping[str, Any], path: str) -> None:
    """Raise SandboxError (400) for `?async=…` or an `async` field: the old way to ask for a task."""
    if query is None and "async" not in fields:
        return
    if query == "false" or (query is None and fields["async"] in (False, "false", None)):
        return
    target = path if "/async/" in path else path.replace("/v1/", "/v1/async/", 1)
    raise invalid(f"The async parameter is no longer supported. Use POST {target}.")


def frame(sizes: list[str], limit: int, default: tuple[int, int]) -> tuple[int, int]:
    """Width and height to draw: the aspect of the first usable size, the longer side at most `limit`."""
    width, height = default
    for size in sizes:
        sides = pixels(size) or _ratio(size)
        if sides is not None:
            width, height = sides
            break
    longer = max(width, height)
    scale = min(1.0, limit / longer) if longer >= 32 else limit / longer
    return max(8, round(width * scale)), max(8, round(height * scale))


def _ratio(size: str) -> tuple[int, int] | None:
    sides = pixels(size.replace(":", "x", 1)) if ":" in size else None
    return sides if sides is not None and max(sides) <= 100 else None


def _sizes(fields: Mapping[str, Any]) -> list[str]:
    sizes = [text for name in _SIZE_FIELDS if (text := _text(fields, name).strip())]
    for size in sizes:
        known = size.lower() == "auto" or size_class(size) or _ratio(size)
        if not known and size.lower() not in ("480p", "540p", "720p", "1080p", "2160p"):
            raise invalid(f"size '{size}' is not supported.")
    return sizes


def _text(fields: Mapping[str, Any], name: str, *, required: bool = False) -> str:
    value = fields.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value.strip()):
        raise invalid(f"{name} is required." if value in (None, "") else f"{name} must be a string.")
    return value


def _count(value: object, is_form: bool) -> int:
    if value is None:
        return 1
    if is_form and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 4:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_N:
        raise invalid(f"n must be an integer from 1 to {_MAX_N}.")
    return value


def _seconds(value: object, name: str) -> Decimal:
    problem: SandboxError = invalid(f"{name} must be a number above 0 and at most {_MAX_SECONDS}.")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise problem
    try:
        seconds = Decimal(str(value).strip())
    except InvalidOperation as error:
        raise problem from error
    if not seconds.is_finite() or not 0 < seconds <= _MAX_SECONDS:
        raise problem
    return seconds


def _image_urls(fields: Mapping[str, Any]) -> bool:
    value = fields.get("image", fields.get("images"))
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(_is_url(item) for item in items)


def _is_url(item: object) -> bool:
    if isinstance(item, dict):
        return _is_url(item.get("image_url", item.get("url")))
    return isinstance(item, str) and item.startswith(("https://", "http://", "data:image/"))


def _seed(name: str, fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{name}\n{fields.get('prompt')}".encode()).hexdigest()[:14]
