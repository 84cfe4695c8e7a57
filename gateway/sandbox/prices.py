"""The sandbox's own models and prices, exact, independent of any price book of the gateway."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

_SIZE_CLASSES = ("512", "1k", "2k", "4k")


@dataclass(frozen=True, slots=True)
class Model:
    """One model: `credits` per image, or per second when `seconds` (its default duration) is set.

    `by_size` overrides the price for a size class, `by_quality` for a quality word.
    """

    id: str
    credits: Decimal
    capabilities: tuple[str, ...]
    seconds: int | None = None
    by_size: Mapping[str, Decimal] = field(default_factory=dict)
    by_quality: Mapping[str, Decimal] = field(default_factory=dict)

    @property
    def category(self) -> str:
        """`image` or `video`."""
        return "image" if self.seconds is None else "video"

    def listed(self) -> dict[str, object]:
        """This model as one item of `GET /v1/models`."""
        return {
            "id": self.id,
            "object": "model",
            "category": self.category,
            "capabilities": list(self.capabilities),
        }


_IMAGE = ("text-to-image", "image-to-image")
_VIDEO = ("text-to-video", "image-to-video")
_FROM_ONE = {"medium": Decimal(2), "high": Decimal(4)}

MODELS: tuple[Model, ...] = (
    Model("gemini-2.5-flash-image", Decimal(2), _IMAGE),
    Model(
        "gemini-3.1-flash-image-preview",
        Decimal(4),
        _IMAGE,
        by_size={"2k": Decimal(6), "4k": Decimal(8)},
    ),
    Model("gemini-3-pro-image-preview", Decimal(8), _IMAGE, by_size={"4k": Decimal(16)}),
    Model("gpt-image-1.5", Decimal(1), _IMAGE, by_quality=_FROM_ONE),
    Model("gpt-image-2", Decimal(1), _IMAGE, by_quality=_FROM_ONE),
    Model("veo", Decimal(1), _VIDEO, seconds=8),
    Model("kling", Decimal("2.24"), _VIDEO, seconds=5),
    Model("wan", Decimal(2), _VIDEO, seconds=5),
    Model("sora-2", Decimal("1.5"), _VIDEO, seconds=4),
)

ALIASES: Mapping[str, str] = {
    "nano-banana": "gemini-2.5-flash-image",
    "nano-banana-2": "gemini-3.1-flash-image-preview",
    "nano-banana-pro": "gemini-3-pro-image-preview",
}

_BY_ID = {model.id: model for model in MODELS}


def find_model(name: str) -> Model | None:
    """The model behind a canonical id or an alias, or None."""
    return _BY_ID.get(ALIASES.get(name, name))


def image_price(model: Model, n: int, size: str | None, quality: str | None) -> Decimal:
    """Credits for `n` images of `model`; `size` is the text of the request, `quality` a word."""
    each = model.credits
    each = model.by_quality.get((quality or "").lower(), each)
    each = model.by_size.get(size_class(size) or "", each)
    return _plain(each * n)


def video_price(model: Model, seconds: Decimal) -> Decimal:
    """Credits for a clip of `seconds`; the fraction of a second counts."""
    return _plain(model.credits * seconds)


def _plain(value: Decimal) -> Decimal:
    """The same number without trailing zeros, so that 11.20 is written as 11.2."""
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()


def size_class(size: str | None) -> str | None:
    """The class of a size by its longer side in pixels; None for `auto`, ratios and no size at all."""
    text = (size or "").strip().lower()
    if text in _SIZE_CLASSES:
        return text
    sides = pixels(text)
    if sides is None:
        return None
    longer = max(sides)
    for limit, name in ((512, "512"), (1536, "1k"), (2560, "2k")):
        if longer <= limit:
            return name
    return "4k"


def pixels(size: str) -> tuple[int, int] | None:
    """Width and height of `WIDTHxHEIGHT`, or None when the text has another form."""
    width, cross, height = size.lower().partition("x")
    if not (cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        return None
    if len(width) > 5 or len(height) > 5 or int(width) == 0 or int(height) == 0:
        return None
    return int(width), int(height)
